//! The cache in memory that policies are tested with natively answers as the host does: the same policy makes the same
//! calls on both, drawn at random, and logs the same answers.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::DateTime;
use larder::policy::{ByteSize, Decision, GrantDocument, Policy, PolicyRun};
use larder::snapshot::{DiskStatus, ImageHistory, MemoryCache, MemoryImage, Origin, Pull};
use larder_guest::testing::{self, FakeCache, FakeImage, NOW};
use larder_guest::{ImageConfigDetail, Right, Timestamp};
use larder_kit::{Project, Tools};
use larder_probe::Probe;
use larder_tests::{ENGINE, run, target};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

/// References as an index has them, in several spellings.
const REFERENCES: [&str; 9] = [
    "docker.io/acme/app:1",
    "docker.io/acme/app:2",
    "docker.io/acme/app@sha256:00000000000000000000000000000000000000000000000000000000000000ff",
    "quay.io/a/b:1@sha256:00000000000000000000000000000000000000000000000000000000000000ff",
    "python:3.12",
    "python",
    "docker.io/library/python:latest",
    "localhost:5000/app",
    "Not A Reference",
];

/// References as a policy may ask for them, besides.
const ASKED: [&str; 8] = [
    "acme/app:1",
    "index.docker.io/acme/app:2",
    "docker.io/library/python:3.12",
    "library/python",
    "localhost:5000/app:latest",
    "docker.io/acme/app:absent",
    "no reference",
    "",
];

/// The layers of the cache, by name, and their KiB.
const LAYERS: [(&str, u64); 5] = [("base", 100), ("one", 10), ("two", 20), ("three", 40), ("empty", 0)];

/// What tags share: layers, and the numbers of sandboxes and snapshots.
#[derive(Debug, Clone)]
struct Manifest {
    layers: Vec<usize>,
    sandboxes: usize,
    snapshots: usize,
}

#[derive(Debug, Clone)]
struct Drawn {
    reference: &'static str,
    manifest: usize,
    created: Option<i64>,
    arrived: Option<i64>,
    used: Option<i64>,
    pinned: bool,
    is_from_archive: bool,
    refused: Option<Right>,
    boots: i64,
}

#[derive(Debug, Clone)]
struct Case {
    manifests: Vec<Manifest>,
    images: Vec<Drawn>,
    calls: Vec<String>,
    has_force: bool,
    max_removals: Option<u32>,
    max_kib: Option<u64>,
    goal_kib: Option<u64>,
}

fn manifests() -> impl Strategy<Value = Vec<Manifest>> {
    let layers = proptest::sample::subsequence((0..LAYERS.len()).collect::<Vec<_>>(), 0..4);
    let users = || prop_oneof![5 => Just(0_usize), 1 => 1..3_usize];
    let manifest = (layers, users(), users());
    let manifest =
        manifest.prop_map(|(layers, sandboxes, snapshots)| Manifest { layers, sandboxes, snapshots });
    proptest::collection::vec(manifest, 5)
}

fn images() -> impl Strategy<Value = Vec<Drawn>> {
    let days = || proptest::option::weighted(0.8, 0..4_i64);
    let refused = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Right::Remove)),
        1 => Just(Some(Right::Protected)),
    ];
    let parts = (0..5_usize, days(), days(), days(), 0..6_u8, any::<bool>(), refused, 0..3_i64);
    let chosen = proptest::sample::subsequence(REFERENCES.to_vec(), 0..=REFERENCES.len());
    (chosen, proptest::collection::vec(parts, REFERENCES.len())).prop_map(|(chosen, parts)| {
        let drawn = |(reference, parts): (&'static str, _)| {
            let (manifest, created, arrived, used, dice, is_from_archive, refused, boots) = parts;
            let pinned = dice == 0;
            Drawn { reference, manifest, created, arrived, used, pinned, is_from_archive, refused, boots }
        };
        let mut images: Vec<Drawn> = chosen.into_iter().zip(parts).map(drawn).collect();
        // Patterns match what a reference normalizes to.
        for index in 1..images.len() {
            let (before, image) = images.split_at_mut(index);
            let same =
                before.iter().find(|other| normalized(other.reference) == normalized(image[0].reference));
            image[0].refused = same.map_or(image[0].refused, |same| same.refused);
        }
        let is_any_refused = images.iter().any(|image| image.refused == Some(Right::Remove));
        // No pattern names what is no reference: it may be removed only where everything may.
        for image in images.iter_mut().filter(|image| image.reference.contains(' ')) {
            image.refused = is_any_refused.then_some(Right::Remove);
        }
        images
    })
}

fn calls() -> impl Strategy<Value = Vec<String>> {
    let one = || proptest::sample::select([&REFERENCES[..], &ASKED[..]].concat());
    let some = |call: &'static str| {
        proptest::collection::vec(proptest::sample::select(REFERENCES.to_vec()), 0..3)
            .prop_map(move |references| [vec![call], references].concat().join("\t"))
    };
    let of = |call: &'static str| one().prop_map(move |reference| format!("{call}\t{reference}"));
    let orders = [
        "created-newest",
        "created-oldest",
        "arrived-newest",
        "arrived-oldest",
        "used-newest",
        "used-oldest",
        "largest",
        "smallest",
    ];
    let limit = proptest::sample::select(vec!["-", "0", "1", "2", "5000"]);
    let after = prop_oneof![2 => Just("-"), 1 => one()];
    let pattern =
        proptest::sample::select(vec!["-", "-", "**", "docker.io/acme/**", "**:1", "docker.io/*/app:*"]);
    let unused = proptest::sample::select(vec!["-", "true", "false"]);
    let before = proptest::option::of(0..4_i64);
    let select = (proptest::sample::select(orders.to_vec()), limit, after, pattern, unused, before).prop_map(
        |(order, limit, after, pattern, unused, before)| {
            let before = before.map_or("-".to_owned(), |days| ago(days).seconds().to_string());
            ["select", order, limit, after, pattern, unused, &before].join("\t")
        },
    );
    let reason = prop_oneof![Just("because"), Just("")];
    let explain = (one(), reason, 1..200_usize)
        .prop_map(|(reference, reason, times)| format!("explain\t{reference}\té{}", reason.repeat(times)));
    let call = prop_oneof![
        1 => Just("list".to_owned()),
        1 => of("get"),
        1 => of("inspect"),
        4 => select,
        5 => of("remove"),
        2 => of("force"),
        3 => of("restore"),
        1 => Just("prune".to_owned()),
        2 => some("usage"),
        2 => some("costs"),
        1 => some("history"),
        2 => some("reclaimable"),
        1 => Just("disk".to_owned()),
        1 => Just("budget".to_owned()),
        2 => explain,
    ];
    proptest::collection::vec(call, 1..25)
}

fn cases() -> impl Strategy<Value = Case> {
    let caps = (proptest::option::weighted(0.2, 0..5_u32), proptest::option::weighted(0.2, 0..200_u64));
    let goal = proptest::option::weighted(0.3, 0..200_u64);
    (manifests(), images(), calls(), any::<bool>(), caps, goal).prop_map(
        |(manifests, images, calls, has_force, (max_removals, max_kib), goal_kib)| Case {
            manifests,
            images,
            calls,
            has_force,
            max_removals,
            max_kib,
            goal_kib,
        },
    )
}

fn ago(days: i64) -> Timestamp {
    Timestamp::new(NOW.seconds() - days * 86_400, 0).expect("an instant")
}

impl Case {
    fn names(&self, image: &Drawn, users: fn(&Manifest) -> usize, name: &str) -> Vec<String> {
        (0..users(&self.manifests[image.manifest])).map(|number| format!("{name}{number}")).collect()
    }

    fn labels() -> [(&'static str, &'static str); 2] {
        [("keep", "true"), ("team", "a")]
    }

    /// The cache in memory of the SDK.
    fn native(&self) -> FakeCache {
        let mut seen = BTreeSet::new();
        let image = |image: &Drawn| {
            let manifest = &self.manifests[image.manifest];
            let mut made = FakeImage::new(image.reference)
                .manifest(&format!("manifest {}", image.manifest))
                .metadata_bytes(0)
                .origin(if image.is_from_archive {
                    larder_guest::Origin::Archive
                } else {
                    larder_guest::Origin::Registry
                })
                .history(larder_guest::ImageHistory {
                    reference: String::new(),
                    first_seen_at: image.created.map(ago),
                    boots: (0..image.boots).map(ago).collect(),
                    boot_count: image.boots as u64 * 2,
                    arrivals: 3,
                    pull_millis: Some(1500),
                    pull_bytes: Some(7),
                })
                .config(ImageConfigDetail {
                    labels: Self::labels().map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
                    ..ImageConfigDetail::default()
                });
            for &layer in &manifest.layers {
                let (name, kib) = LAYERS[layer];
                made = made.layer(name, &format!("{kib}KiB"));
            }
            // Users are of the manifest: one tag has them for all.
            if seen.insert(image.manifest) {
                made = self
                    .names(image, |m| m.sandboxes, "sandbox")
                    .iter()
                    .fold(made, |made, name| made.sandbox(name));
                made = self
                    .names(image, |m| m.snapshots, "snapshot")
                    .iter()
                    .fold(made, |made, name| made.snapshot(name));
            }
            made = image.created.into_iter().fold(made, |made, days| made.created_at(ago(days)));
            made = image.arrived.into_iter().fold(made, |made, days| made.arrived_at(ago(days)));
            made = image.used.into_iter().fold(made, |made, days| made.used_at(ago(days)));
            if image.pinned {
                made = made.pinned();
            }
            match image.refused.or((!self.has_force).then_some(Right::Force)) {
                Some(right) => made.refused(right),
                None => made,
            }
        };
        let mut cache = FakeCache::new(self.images.iter().map(image)).with_page(1024).on_disk("1GiB", "1MiB");
        if let Some(removals) = self.max_removals {
            cache = cache.with_max_removals(removals);
        }
        if let Some(kib) = self.max_kib {
            cache = cache.with_max_bytes(&format!("{kib}KiB"));
        }
        match self.goal_kib {
            Some(kib) => cache.with_goal(&format!("{kib}KiB")),
            None => cache,
        }
    }

    /// The same cache for a host.
    fn hosted(&self) -> MemoryCache {
        let instant = |days: i64| DateTime::from_timestamp(ago(days).seconds(), 0).expect("an instant");
        let image = |image: &Drawn| {
            let layers = &self.manifests[image.manifest].layers;
            let mut made = MemoryImage::new(image.reference);
            made.manifest = format!("manifest {}", image.manifest);
            made.layers = layers.iter().map(|&layer| LAYERS[layer].0.to_owned()).collect();
            made.size_bytes = Some(layers.iter().map(|&layer| LAYERS[layer].1 as i64 * 1024).sum());
            made.sandboxes = self.names(image, |m| m.sandboxes, "sandbox");
            made.snapshots = self.names(image, |m| m.snapshots, "snapshot");
            made.created_at = image.created.map(instant);
            made.arrived_at = image.arrived.map(instant);
            made.last_used_at = image.used.map(instant);
            made.pinned = image.pinned;
            made.origin = if image.is_from_archive { Origin::Archive } else { Origin::Registry };
            made.labels = Some(Self::labels().into_iter().collect());
            made.history = ImageHistory {
                first_seen_at: image.created.map(instant),
                boots: (0..image.boots).map(instant).collect(),
                boot_count: image.boots as u64 * 2,
                arrivals: 3,
                last_pull: Some(Pull { duration: Duration::from_millis(1500), bytes: 7 }),
            };
            made
        };
        let used: BTreeSet<usize> =
            self.images.iter().flat_map(|image| self.manifests[image.manifest].layers.clone()).collect();
        let disk = DiskStatus {
            cache_bytes: used.iter().map(|&layer| LAYERS[layer].1 * 1024).sum(),
            capacity_bytes: 1 << 30,
            available_bytes: 1 << 20,
        };
        let cache = MemoryCache::new(self.images.iter().map(image)).with_disk(disk);
        LAYERS.iter().fold(cache, |cache, (name, kib)| cache.with_layer(*name, kib * 1024))
    }

    fn grant(&self) -> GrantDocument {
        let with = |right| self.images.iter().filter(move |image| image.refused == Some(right));
        let list = |images: Vec<&Drawn>| {
            json!(images.iter().map(|image| normalized(image.reference)).collect::<Vec<_>>())
        };
        let removable = match with(Right::Remove).next() {
            Some(_) => {
                list(self.images.iter().filter(|image| image.refused != Some(Right::Remove)).collect())
            }
            None => json!(["**"]),
        };
        let mut text = format!(
            "[grant]\ninspect = [\"**\"]\nprune = true\nforce = {}\nremove = {}\n",
            self.has_force, removable
        );
        if let Some(removals) = self.max_removals {
            text += &format!("max-removals = {removals}\n");
        }
        if let Some(kib) = self.max_kib {
            text += &format!("max-bytes = \"{kib}KiB\"\n");
        }
        text += &format!("[guard]\nmin-age = \"0s\"\nprotect = {}\n", list(with(Right::Protected).collect()));
        GrantDocument::from_toml(&text, "grant.toml").expect("a grant")
    }
}

/// Returns a reference as patterns match it.
fn normalized(reference: &str) -> String {
    reference
        .parse::<larder::reference::Reference>()
        .map_or_else(|_| reference.to_owned(), |parsed| parsed.to_string())
}

fn probe() -> Policy {
    let project = Project::open(concat!(env!("CARGO_MANIFEST_DIR"), "/probe").as_ref()).expect("a policy");
    let project = project.in_work_directory(target().join("wasm"));
    let output = target().join("probe.wasm");
    project.build(&Tools::in_directory(target().join("tools")), &output, &mut |_| {}).expect("a component");
    run(Policy::load(&ENGINE, std::fs::read(output).expect("the component"))).expect("a policy")
}

/// Whatever the cache, the grant, the goal and the calls: both log the same answers, decide the same, or fail together.
#[test]
fn the_host_and_the_cache_in_memory_agree() {
    let policy = probe();
    let mut random = TestRunner::deterministic();
    let strategy = cases();
    let (mut plans, mut failures, mut answers) = (0, 0, 0);
    for _ in 0..600 {
        let case = strategy.new_tree(&mut random).expect("a case").current();
        let config = json!({ "calls": case.calls });
        let mut native = case.native();
        let decided = testing::run::<Probe>(&config.to_string(), &mut native);
        let now = DateTime::from_timestamp(NOW.seconds(), 0).expect("an instant");
        let policy_run = PolicyRun::new(now).with_config(config).with_grant(case.grant());
        let policy_run = match case.goal_kib {
            Some(kib) => policy_run.with_goal(ByteSize::kib(kib)),
            None => policy_run,
        };
        let plan = match (run(policy.evaluate(Box::new(case.hosted()), &policy_run)), &decided) {
            (Ok(evaluation), Ok(())) => evaluation.plan,
            (Err(_), Err(_)) => {
                failures += 1;
                continue;
            }
            (hosted, native) => {
                panic!("one fails and one does not: {:?}, {native:?}\n{case:?}", hosted.map(|_| ()))
            }
        };
        plans += 1;
        answers += plan.log.len();
        for (hosted, (_, native)) in plan.log.iter().zip(native.logs()) {
            assert_eq!(hosted.message, *native, "{case:?}");
        }
        assert_eq!(plan.log.len(), native.logs().len());
        let hosted: Vec<_> = plan
            .entries
            .iter()
            .map(|entry| {
                let reason = native.reason(&entry.reference).filter(|_| case.goal_kib.is_none());
                let verb = if entry.decision == Decision::Remove { "remove" } else { "keep" };
                let reason = reason.map_or("(no reason given)", |_| &entry.reason);
                format!("{verb} {}: {reason}", entry.reference)
            })
            .collect();
        let native: Vec<_> =
            native.decisions().into_iter().map(|line| without_reason(line, case.goal_kib)).collect();
        assert_eq!(hosted, native, "{case:?}");
    }
    assert!(
        plans > 400 && failures > 10 && answers > 4_000,
        "{plans} plans, {failures} failures, {answers} answers"
    );
}

/// With a goal, reasons of what the goal leaves are the host's own.
fn without_reason(line: String, goal_kib: Option<u64>) -> String {
    match line.split_once(": ") {
        Some((decision, _)) if goal_kib.is_some() => format!("{decision}: (no reason given)"),
        _ => line,
    }
}
