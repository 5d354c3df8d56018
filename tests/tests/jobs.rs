//! Jobs on a home: what a run removes, and when it ends.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::job::{
    FileSystemStatus, HeldBy, Job, JobFile, JobOutcome, JobReport, Pass, PolicyName, Runner, StepReport,
};
use larder::plan::PlanReport;
use larder::policy::{Policy, PolicyError};
use larder::{LocalBackend, MicrosandboxError};
use larder_tests::{ENGINE, FIXTURE_NOW, Home, ImageSpec, Users, component, manifest_digest, populate, run};
use proptest::prelude::*;

/// The size of the file system that the tests pretend.
const SIZE: u64 = 1 << 30;

/// The job of a file of one job.
fn job(text: &str) -> Job {
    JobFile::parse(text).unwrap_or_else(|findings| panic!("{findings}")).jobs.remove(0)
}

/// A job that begins and ends with this many bytes free.
fn pressure(until: u64, steps: &str) -> Job {
    job(&format!("[jobs.a]\nwhen-free-below = \"{}B\"\nuntil-free = \"{until}B\"\n{steps}", until - 1))
}

const KEEP_ONE: &str =
    "policy = \"keep-recent\"\nconfig = { keep = 1 }\ngrant = { remove = [\"**\"], max-share = \"100%\" }\n";

/// A file system on which the cache, and so much besides, is all that is used.
fn beside(cache: &Path, besides: u64) -> FileSystemStatus {
    let available_bytes = SIZE - besides - allocated(cache);
    FileSystemStatus { size_bytes: SIZE, available_bytes, inodes: 0, inodes_free: 0 }
}

/// The allocated bytes of the files below a directory.
fn allocated(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let sizes = entries.map(|entry| match entry.metadata().expect("its metadata") {
        metadata if metadata.is_dir() => allocated(&entry.path()),
        metadata => metadata.blocks() * 512,
    });
    sizes.sum()
}

fn policies() -> HashMap<PolicyName, Policy> {
    let bytes = std::fs::read(component("keep-recent")).expect("the component");
    let policy = run(Policy::load(&ENGINE, bytes)).expect("a policy");
    HashMap::from([(PolicyName::Bundled("keep-recent".to_owned()), policy)])
}

/// What became of each round of a step that succeeded.
fn reports(step: &StepReport) -> impl Iterator<Item = &PlanReport> {
    assert!(step.error.is_none(), "{:?}", step.error);
    step.rounds.iter().map(|round| round.report.as_ref().expect("it was applied"))
}

/// A home of one repository, whose images share their base.
fn home(images: u32) -> Home {
    let home = Home::made();
    let specs: Vec<ImageSpec> = (0..images)
        .map(|number| ImageSpec {
            reference: format!("docker.io/acme/app:v{number}"),
            manifest: number,
            layers: vec![9_000, 100 + number, 200 + number / 2],
            age_days: i64::from(100 - number),
            unused_days: i64::from(100 - number),
            ..ImageSpec::default()
        })
        .collect();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &specs);
    // What the first change of a home makes is there.
    run(async { home.open().await.unpin("docker.io/acme/app:v0").await.map(drop) }).expect("a change");
    home
}

fn runner(home: &Home, local: LocalBackend) -> Runner {
    let cache = home.cache();
    Runner::new(local).with_file_system(move || Ok(beside(&cache, 0)))
}

fn images(home: &Home) -> i64 {
    home.count("SELECT count(*) FROM image_ref")
}

fn ran(home: &Home, job: &Job, pass: Pass) -> JobReport {
    let policies = policies();
    run(async {
        let local = home.open().await;
        runner(home, local).run(job, &policies, pass).await.expect("a report")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// A job under pressure removes until its goal is met and no image more: without the last one, it was not met. What
    /// cannot be met is said to the byte.
    #[test]
    fn a_goal_is_met_and_no_more(count in 2_u32..9, wanted in 1_u64..120_000) {
        let home = home(count);
        let before = beside(&home.cache(), 0).available_bytes;
        let report = ran(&home, &pressure(before + wanted, KEEP_ONE), Pass::Real);
        let freed = report.after.available_bytes - before;
        prop_assert_eq!(report.goal_bytes, Some(wanted));
        prop_assert_eq!(report.unmet_bytes, wanted.saturating_sub(freed));
        let removals: Vec<u64> = report.steps.iter()
            .flat_map(reports)
            .flat_map(|done| done.removed.iter().map(|image| image.bytes))
            .collect();
        prop_assert_eq!(removals.iter().sum::<u64>(), freed);
        if report.unmet_bytes == 0 {
            // The oldest was staged first, and the plan lists the newest first.
            let plans = report.steps.iter().flat_map(|step| &step.rounds).map(|round| &round.plan);
            let last = plans.flat_map(|plan| plan.removals().next()).next_back().map_or(0, |entry| entry.bytes);
            prop_assert!(freed - last < wanted, "{freed} less {last} for {wanted}");
        } else {
            prop_assert_eq!(images(&home), 1, "all that the policy proposes is gone");
        }
    }
}

/// What nothing owns goes first, and no policy runs if that is enough.
#[test]
fn leftovers_go_first() {
    let home = home(3);
    let orphan = home.cache().join("layers").join(format!("sha256_{}.erofs", "e".repeat(64)));
    std::fs::write(&orphan, vec![7; 64 * 1024]).expect("a file that nothing owns");
    let old = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options()
        .write(true)
        .open(&orphan)
        .and_then(|file| file.set_modified(old))
        .expect("its time");
    let before = beside(&home.cache(), 0).available_bytes;
    // The policy of the step would be refused: it is not run.
    let step = KEEP_ONE.replace("keep = 1", "keep = 0");
    let report = ran(&home, &pressure(before + 60_000, &step), Pass::Real);
    assert_eq!((report.unmet_bytes, report.steps.len(), images(&home)), (0, 1, 3));
    assert!(!orphan.exists());
}

/// A step that fails is on record and ends nothing: the next one runs, with what is then still missing as its goal. No step
/// runs after the goal is met.
#[test]
fn steps_run_until_the_goal_is_met() {
    let home = home(6);
    let before = beside(&home.cache(), 0).available_bytes;
    let steps = r#"step = [
      { policy = "keep-recent", config = { keep = 0 }, grant = { remove = ["**"], max-share = "100%" } },
      { policy = "keep-recent", config = { keep = 3 }, grant = { remove = ["**"], max-share = "100%" } },
      { policy = "keep-recent", config = { keep = 1 }, grant = { remove = ["**"], max-share = "100%" } },
      { policy = "keep-recent", config = { keep = 1 }, grant = { remove = ["**"], max-share = "100%" } },
    ]"#;
    // Three images are not enough, five are more.
    let three = ran(&home, &pressure(SIZE, KEEP_ONE), Pass::DryRun);
    let plan = &three.steps[1].rounds[0].plan;
    let frees: Vec<u64> = plan.removals().map(|entry| entry.bytes).collect();
    assert_eq!(frees.len(), 5);
    // Oldest first: the plan lists the newest first.
    let wanted: u64 = frees[1..].iter().sum();
    let report = ran(&home, &pressure(before + wanted, steps), Pass::Real);
    let removed: Vec<Option<usize>> = report
        .steps
        .iter()
        .map(|step| step.error.is_none().then(|| reports(step).map(|done| done.removed.len()).sum()))
        .collect();
    assert_eq!(removed, [Some(0), None, Some(3), Some(1)], "leftovers, a refused config, three, one");
    assert_eq!((report.unmet_bytes, images(&home)), (0, 2));
    let history = run(async { home.open().await.history(10).await.expect("a history") });
    assert!(history.iter().any(|run| run.problem.is_some()), "the failure is on record");
}

/// A dry run, and a job that observes, change nothing and show the plan that would be applied.
#[test]
fn what_observes_changes_nothing() {
    let home = home(5);
    let state = || {
        (
            images(&home),
            home.files("layers"),
            home.files("manifests"),
            home.count("SELECT count(*) FROM larder_run"),
        )
    };
    let before = state();
    let goal = beside(&home.cache(), 0).available_bytes + 20_000;
    let dry = ran(&home, &pressure(goal, KEEP_ONE), Pass::DryRun);
    let observed = ran(&home, &pressure(goal, &format!("{KEEP_ONE}mode = \"observe\"\n")), Pass::Real);
    assert_eq!(state(), before);
    let plans = |report: &JobReport| -> Vec<Vec<String>> {
        let rounds = report.steps.iter().flat_map(|step| &step.rounds);
        rounds
            .map(|round| {
                assert!(round.report.is_none(), "nothing was applied");
                round.plan.removals().map(|entry| entry.reference.clone()).collect()
            })
            .collect()
    };
    assert_eq!((dry.unmet_bytes, plans(&dry)), (0, plans(&observed)));
    let real = ran(&home, &pressure(goal, KEEP_ONE), Pass::Real);
    let mut removed: Vec<String> = reports(&real.steps[1])
        .flat_map(|done| done.removed.iter().map(|image| image.reference.clone()))
        .collect();
    let mut planned = plans(&dry).remove(1);
    removed.sort();
    planned.sort();
    assert_eq!(removed, planned);
}

/// A bound that is met leaves everything as it is, and a schedule has no goal.
#[test]
fn without_pressure() {
    let home = home(4);
    let free = beside(&home.cache(), 0).available_bytes;
    let report = ran(&home, &pressure(free, KEEP_ONE), Pass::Real);
    assert_eq!((report.goal_bytes, report.steps.len(), images(&home)), (Some(0), 0, 4));
    let scheduled = job(&format!("[jobs.a]\nschedule = \"@daily\"\n{KEEP_ONE}"));
    let report = ran(&home, &scheduled, Pass::Real);
    assert_eq!((report.goal_bytes, report.unmet_bytes, images(&home)), (None, 0, 1));
}

/// A job that is stopped before it begins removes nothing, and says that it was stopped.
#[test]
fn a_stopped_job() {
    let home = home(4);
    let (job, policies) = (pressure(SIZE, KEEP_ONE), policies());
    let report = run(async {
        let local = home.open().await;
        let stop = std::future::ready(());
        runner(&home, local).run_until(&job, &policies, Pass::Real, stop).await
    });
    let report = report.expect("a report");
    assert_eq!((report.is_stopped, images(&home)), (true, 4));
}

/// A step whose policy is not there fails, and removes nothing.
#[test]
fn a_policy_that_is_not_there() {
    let home = home(3);
    let job = pressure(SIZE, KEEP_ONE);
    let report = run(async { runner(&home, home.open().await).run(&job, &HashMap::new(), Pass::Real).await });
    let report = report.expect("a report");
    let error = report.steps[1].error.as_ref().expect("an error").to_string();
    assert_eq!(error, "invalid configuration: there is no policy `keep-recent`");
    assert_eq!((report.outcome(), images(&home)), (JobOutcome::Error, 3));
}

/// What a live operation holds is spared, and the next image in line goes instead, until the goal is met; the caps count for
/// all of it.
#[test]
fn a_held_image_is_passed_over() {
    let home = home(6);
    let dry = ran(&home, &pressure(SIZE, KEEP_ONE), Pass::DryRun);
    let order: Vec<&str> = dry.steps[1].rounds[0].plan.removals().map(|entry| &*entry.reference).collect();
    let oldest_first: Vec<&str> = order.into_iter().rev().collect();
    let _held = home.lease("fsmeta", &format!("{}.erofs", manifest_digest(0).replace(':', "_")));
    let goal = beside(&home.cache(), 0).available_bytes + 1;
    let report = ran(&home, &pressure(goal, KEEP_ONE), Pass::Real);
    let rounds: Vec<Vec<&str>> = reports(&report.steps[1])
        .map(|done| done.removed.iter().map(|image| &*image.reference).collect())
        .collect();
    assert_eq!(rounds, [vec![], vec![oldest_first[1]]], "the oldest is held");
    assert_eq!((report.unmet_bytes, report.outcome(), images(&home)), (0, JobOutcome::Success, 5));
    // With a cap of one image there is no second: the held one counts.
    let capped = KEEP_ONE.replace("max-share = \"100%\"", "max-removals = 1");
    let goal = beside(&home.cache(), 0).available_bytes + 1;
    let report = ran(&home, &pressure(goal, &capped), Pass::Real);
    assert!(matches!(report.steps[1].error, Some(MicrosandboxError::Policy(PolicyError::OverBudget(_)))));
    assert_eq!((report.outcome(), images(&home)), (JobOutcome::Refused, 5));
    let held: Vec<HeldBy> = report.held.iter().map(|held| held.by).collect();
    assert!(held.contains(&HeldBy::Leased) && held.contains(&HeldBy::NotProposed), "{held:?}");
}

/// Where something else frees space, a removal ends after the batch that it is at: what is left of its plan stays.
#[test]
fn enough_ends_a_removal() {
    // A process that may open few files removes in small batches.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(200), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("a limit");
    let home = home(100);
    let looks = Arc::new(AtomicUsize::new(0));
    let (policies, cache) = (policies(), home.cache());
    let report = run(async {
        let (asked, before) = (Arc::clone(&looks), beside(&cache, 0));
        // The first looks are those before the plan of the policy is applied.
        let status = move || {
            let is_free = asked.fetch_add(1, Ordering::Relaxed) >= 3;
            let available_bytes = if is_free { SIZE } else { before.available_bytes };
            Ok(FileSystemStatus { available_bytes, ..before })
        };
        let runner = Runner::new(home.open().await).with_file_system(status).with_patience(Duration::ZERO);
        runner.run(&pressure(SIZE, KEEP_ONE), &policies, Pass::Real).await.expect("a report")
    });
    let done: Vec<&PlanReport> = report.steps.iter().flat_map(reports).collect();
    let removed: usize = done.iter().map(|done| done.removed.len()).sum();
    assert!((1..99).contains(&removed), "{removed} of 99 in a batch");
    assert_eq!(done.iter().map(|done| done.left.len()).sum::<usize>(), 99 - removed);
    assert_eq!(
        (report.unmet_bytes, report.outcome(), images(&home)),
        (0, JobOutcome::Success, 100 - removed as i64)
    );
}

/// Where files go and no space becomes free, the job ends, says so and takes nothing more.
#[test]
fn space_that_does_not_become_free() {
    let home = home(4);
    // More than what is too little to look at.
    let orphan = home.cache().join("layers").join(format!("sha256_{}.erofs", "e".repeat(64)));
    std::fs::write(&orphan, vec![7; 3 << 20]).expect("a file that nothing owns");
    let file = std::fs::File::options().read(true).write(true).open(&orphan).expect("a file");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("its time");
    let (policies, before) = (policies(), beside(&home.cache(), 0));
    let stuck = |patience: Duration| {
        run(async {
            let runner =
                Runner::new(home.open().await).with_file_system(move || Ok(before)).with_patience(patience);
            runner.run(&pressure(SIZE, KEEP_ONE), &policies, Pass::Real).await.expect("a report")
        })
    };
    let report = stuck(Duration::ZERO);
    assert!(!orphan.exists());
    assert_eq!((report.steps.len(), images(&home)), (1, 4), "no policy ran");
    let [note] = report.notes.as_slice() else { panic!("{:?}", report.notes) };
    let process = std::process::id().to_string();
    assert!(
        note.starts_with("files of 3MiB went, and 0B more are free: process ") && note.contains(&process),
        "{note}"
    );
    assert!(note.ends_with("still have 3MiB of deleted files open"), "{note}");
    drop(file);
}

/// An unmet goal says what holds the used bytes, each byte once, and they add up to the used bytes.
#[test]
fn what_holds_the_rest() {
    let home = Home::made();
    let spec = |name: &str, number: u32, layers: Vec<u32>| ImageSpec {
        reference: format!("docker.io/acme/{name}:v{number}"),
        manifest: number,
        layers,
        age_days: 100,
        unused_days: 100,
        ..ImageSpec::default()
    };
    let specs = [
        ImageSpec { users: Users::Sandbox, ..spec("app", 1, vec![1, 100]) },
        spec("app", 2, vec![2, 100]),
        spec("app", 3, vec![3, 100]),
        spec("base", 4, vec![4, 100]),
        ImageSpec { age_days: 0, unused_days: 0, ..spec("app", 5, vec![5, 100]) },
        spec("other", 6, vec![6, 100]),
        spec("tool", 7, vec![7, 100]),
    ];
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &specs);
    run(async { home.open().await.pin("docker.io/acme/app:v2").await.map(drop) }).expect("a pin");
    std::fs::write(home.path().join("larder.toml"), "[guard]\nprotect = [\"docker.io/acme/base\"]\n")
        .expect("a guard");
    std::fs::write(home.cache().join("layers/sha256_young"), vec![1; 8192]).expect("a file");
    // One image of `app` is left over by the policy, and `other` is outside of its grant.
    let step = KEEP_ONE
        .replace("\"**\"", "\"docker.io/acme/app\", \"docker.io/acme/base\", \"docker.io/acme/tool\"");
    let policies = policies();
    let report = run(async {
        let cache = home.cache();
        let runner = Runner::new(home.open().await).with_file_system(move || Ok(beside(&cache, 5000)));
        runner.run(&pressure(SIZE, &step), &policies, Pass::Real).await.expect("a report")
    });
    assert!(report.unmet_bytes > 0);
    let used = report.after.used_bytes();
    assert_eq!(report.held.iter().map(|held| held.bytes).sum::<u64>(), used, "{:?}", report.held);
    let of = |by: HeldBy| report.held.iter().find(|held| held.by == by).copied();
    let images = |by| of(by).map_or(0, |held| held.images);
    let causes =
        [HeldBy::InUse, HeldBy::Pinned, HeldBy::Guarded, HeldBy::Young, HeldBy::Denied, HeldBy::NotProposed];
    assert_eq!(causes.map(images), [1, 1, 1, 1, 1, 1], "{:?}", report.held);
    assert_eq!(of(HeldBy::Elsewhere).map(|held| held.bytes), Some(5000));
    assert!(of(HeldBy::Unowned).is_some_and(|held| held.bytes >= 8192), "{:?}", report.held);
    // The layer that all share counts for what is in use.
    let (in_use, pinned) = (of(HeldBy::InUse).expect("held").bytes, of(HeldBy::Pinned).expect("held").bytes);
    assert!(in_use > pinned, "{in_use} and {pinned}");
}
