//! Jobs under pressure on random homes: what a run may never do, and what its report has to say.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use larder::job::{FileSystemStatus, HeldBy, JobFile, JobReport, Pass, PolicyName, Runner};
use larder::policy::Policy;
use larder_tests::{ENGINE, FIXTURE_NOW, Home, ImageSpec, Users, component, populate, run};
use proptest::prelude::*;

const SIZE: u64 = 1 << 30;
const BESIDES: u64 = 123_456;

/// What a test decides about an image.
#[derive(Debug, Clone)]
struct Drawn {
    /// Of a few layers that images share.
    layers: BTreeSet<u32>,
    repository: u32,
    users: Users,
    is_pinned: bool,
    is_young: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let users = prop_oneof![
        6 => Just(Users::None),
        1 => Just(Users::Sandbox),
        1 => Just(Users::NamedInConfig),
        1 => Just(Users::Snapshot),
    ];
    let layers = proptest::collection::btree_set(0_u32..12, 1..5);
    (layers, 0_u32..3, users, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)).prop_map(
        |(layers, repository, users, is_pinned, is_young)| Drawn {
            layers,
            repository,
            users,
            is_pinned,
            is_young,
        },
    )
}

fn reference(number: usize, drawn: &Drawn) -> String {
    format!("docker.io/acme/app{}:v{number}", drawn.repository)
}

fn home_of(images: &[Drawn]) -> Home {
    let home = Home::made();
    let specs: Vec<ImageSpec> = images
        .iter()
        .enumerate()
        .map(|(number, drawn)| ImageSpec {
            reference: reference(number, drawn),
            manifest: number as u32,
            layers: drawn.layers.iter().copied().collect(),
            users: drawn.users,
            age_days: if drawn.is_young { 0 } else { 90 - number as i64 },
            unused_days: if drawn.is_young { 0 } else { 90 - number as i64 },
        })
        .collect();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &specs);
    std::fs::write(home.path().join("larder.toml"), "[guard]\nprotect = [\"docker.io/acme/app2\"]\n")
        .expect("a guard");
    run(async {
        let local = home.open().await;
        local.unpin(&reference(0, &images[0])).await.expect("a change");
        for (number, drawn) in images.iter().enumerate().filter(|(_, drawn)| drawn.is_pinned) {
            local.pin(&reference(number, drawn)).await.expect("a pin");
        }
    });
    home
}

/// A file system on which the cache, and a little besides, is all that is used.
fn status(cache: &Path) -> FileSystemStatus {
    fn allocated(directory: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let entries =
            std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
        let sizes = entries.map(|entry| match entry.metadata().expect("its metadata") {
            metadata if metadata.is_dir() => allocated(&entry.path()),
            metadata => metadata.blocks() * 512,
        });
        sizes.sum()
    }
    let available_bytes = SIZE - BESIDES - allocated(cache);
    FileSystemStatus { size_bytes: SIZE, available_bytes, inodes: 0, inodes_free: 0 }
}

fn policies() -> HashMap<PolicyName, Policy> {
    let load = |name: &str| {
        let bytes = std::fs::read(component(name)).expect("the component");
        (PolicyName::Bundled(name.to_owned()), run(Policy::load(&ENGINE, bytes)).expect("a policy"))
    };
    ["keep-recent", "disk-budget"].into_iter().map(load).collect()
}

fn ran(home: &Home, until: u64, policies: &HashMap<PolicyName, Policy>) -> JobReport {
    let text = format!(
        r#"
[jobs.a]
when-free-below = "{}B"
until-free = "{until}B"
step = [
  {{ policy = "keep-recent", config = {{ keep = 2 }}, grant = {{ remove = ["docker.io/acme/app0"], max-share = "100%" }} }},
  {{ policy = "disk-budget", grant = {{ remove = ["docker.io/acme/app0", "docker.io/acme/app2"], max-share = "100%" }} }},
]
"#,
        until - 1
    );
    let job = JobFile::parse(&text).unwrap_or_else(|findings| panic!("{findings}")).jobs.remove(0);
    let cache = home.cache();
    run(async {
        let runner = Runner::new(home.open().await).with_file_system(move || Ok(status(&cache)));
        runner.run(&job, policies, Pass::Real).await.expect("a report")
    })
}

/// The references in the index.
fn left(home: &Home) -> BTreeSet<String> {
    home.texts("SELECT reference FROM image_ref")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// What is used, pinned, guarded, young or outside of every grant stays, whatever is missing. No step runs after the goal
    /// is met, and without the last image that went it was not. What holds the rest adds up to the used bytes, and each image
    /// that is left counts once.
    #[test]
    fn what_always_holds(images in proptest::collection::vec(drawn(), 1..14), wanted in 1_u64..200_000) {
        let (home, policies) = (home_of(&images), policies());
        let before = status(&home.cache()).available_bytes;
        let report = ran(&home, before + wanted, &policies);
        let there = left(&home);
        for (number, drawn) in images.iter().enumerate() {
            let stays = drawn.users != Users::None || drawn.is_pinned || drawn.is_young || drawn.repository != 0;
            prop_assert!(!stays || there.contains(&reference(number, drawn)), "{drawn:?} went");
        }
        let freed = report.after.available_bytes - before;
        prop_assert_eq!(report.freed_bytes, freed);
        prop_assert_eq!(report.unmet_bytes, wanted.saturating_sub(freed));
        let mut so_far = 0;
        for step in &report.steps {
            prop_assert!(so_far < wanted, "a step ran after the goal was met");
            prop_assert!(step.error.is_none(), "{:?}", step.error);
            so_far += step.rounds.iter().map(|round| {
                let report = round.report.as_ref().expect("it was applied");
                report.report.bytes_reclaimed.unwrap_or_default()
            }).sum::<u64>();
        }
        if report.unmet_bytes == 0 {
            // The oldest is staged first, and a plan lists the newest first.
            let rounds = report.steps.iter().flat_map(|step| &step.rounds);
            let last = rounds.filter_map(|round| round.plan.removals().next()).next_back().map_or(0, |entry| entry.bytes);
            prop_assert!(freed - last < wanted, "{freed} less {last} for {wanted}");
            prop_assert!(report.held.is_empty());
        } else {
            let sum: u64 = report.held.iter().map(|held| held.bytes).sum();
            prop_assert_eq!(sum, report.after.used_bytes(), "{:?}", &report.held);
            let counted: u64 = report.held.iter().map(|held| held.images).sum();
            prop_assert_eq!(counted, there.len() as u64, "{:?}", &report.held);
            let elsewhere = report.held.iter().find(|held| held.by == HeldBy::Elsewhere).map(|held| held.bytes);
            prop_assert_eq!(elsewhere, Some(BESIDES));
        }
    }
}
