//! Jobs on a home: what a run removes, and when it ends.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use larder::LocalBackend;
use larder::job::{
    FileSystemStatus, Job, JobFile, JobOutcome, JobReport, Pass, PolicyName, Runner, StepReport,
};
use larder::plan::PlanReport;
use larder::policy::Policy;
use larder_tests::{ENGINE, FIXTURE_NOW, Home, ImageSpec, component, populate, run};
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
