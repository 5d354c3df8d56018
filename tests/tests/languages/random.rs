//! Caches, configs and grants at random.

use chrono::TimeDelta;
use larder::policy::{GrantDocument, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::agreement::{REMOVE_ALL, ago, agreed, grant, now};

/// Texts that are references in any spelling, and texts that are none.
const REFERENCES: [&str; 30] = [
    "python",
    "python:3.12",
    "docker.io/python:3.13",
    "docker.io/library/python:3.14",
    "index.docker.io/library/python:3.11",
    "index.docker.io/python@sha256:00ff",
    "acme/app:1",
    "acme/app:2",
    "docker.io/acme/app:3",
    "docker.io/acme/app:4",
    "docker.io/acme/app:5",
    "docker.io/acme/app:11",
    "docker.io/acme/app@sha256:aa",
    "docker.io/acme/app:6@sha256:bb",
    "localhost/app:1",
    "localhost/app:2",
    "localhost:5000/app",
    "localhost:5000/app:1",
    "quay.io/a/b/c:1",
    "quay.io/a/b/c:2",
    "quay.io/a/b/c@sha256:cc:dd",
    "Not A Reference",
    "/",
    "//::@@",
    "@",
    "a/",
    "é:1",
    "\u{fffd}/ä:1",
    "\u{1f4e6}/ä:1",
    "docker.io//x",
];

/// Images that have no name yet.
fn images() -> impl Strategy<Value = MemoryImage> {
    // Few instants, so that many images share one; ahead of now, too, and not on whole seconds.
    let instant = || {
        let few = [-90_000, 0, 1, 3_599, 86_400, 604_800, 31_536_000_i64];
        let seconds = prop_oneof![7 => proptest::sample::select(few.to_vec()), 1 => 0..10_000_000_i64];
        let exact = (seconds, prop_oneof![Just(0_i64), Just(499), Just(500), Just(501)])
            .prop_map(|(seconds, nanoseconds)| ago(seconds) - TimeDelta::nanoseconds(nanoseconds));
        proptest::option::weighted(0.85, exact)
    };
    let names = || {
        let name = prop_oneof![Just("web"), Just("job"), Just("")].prop_map(str::to_owned);
        prop_oneof![6 => Just(Vec::new()), 1 => proptest::collection::vec(name, 0..3)]
    };
    let parts = (instant(), instant(), instant(), names(), names(), 0..10_u8);
    parts.prop_map(|(created, arrived, used, sandboxes, snapshots, number)| {
        let mut image = MemoryImage::new("");
        image.created_at = created;
        image.arrived_at = arrived.filter(|_| number % 2 == 0);
        image.last_used_at = used;
        image.sandboxes = sandboxes;
        image.snapshots = snapshots;
        image.pinned = number == 0;
        // Some are tags of one manifest, and share its layers.
        image.manifest = if number < 3 { "shared".to_owned() } else { String::new() };
        image.layers = vec!["base".to_owned(), format!("own{number}")];
        image
    })
}

fn caches() -> impl Strategy<Value = MemoryCache> {
    let chosen = proptest::sample::subsequence(REFERENCES.to_vec(), 0..=REFERENCES.len());
    (chosen, proptest::collection::vec(images(), REFERENCES.len())).prop_map(|(references, images)| {
        let images = references.into_iter().zip(images).map(|(reference, mut image)| {
            image.reference = reference.to_owned();
            if image.manifest.is_empty() {
                image.manifest = reference.to_owned();
            }
            image
        });
        let cache = MemoryCache::new(images).with_layer("base", 8192);
        (0..10).fold(cache, |cache, n| cache.with_layer(format!("own{n}"), 4096 * (n + 1)))
    })
}

fn configs() -> impl Strategy<Value = Value> {
    let keep = proptest::option::weighted(
        0.8,
        prop_oneof![Just(1_u32), Just(1), Just(2), Just(11), Just(u32::MAX), 0..4_u32],
    );
    let ages = ["0s", "1s", "1h", "59m59s", "1d", "7d", "1w", "1w1s", "52w", "3650d"];
    let within = proptest::option::of(proptest::sample::select(ages.to_vec()));
    (keep, within).prop_map(|(keep, within)| {
        let mut config = serde_json::Map::new();
        config.extend(keep.map(|keep| ("keep".to_owned(), keep.into())));
        config.extend(within.map(|within| ("used-within".to_owned(), within.into())));
        config.into()
    })
}

fn grants() -> impl Strategy<Value = GrantDocument> {
    let texts = [
        REMOVE_ALL,
        REMOVE_ALL,
        "",
        "[grant]\nremove = [\"**\"]\n",
        "[grant]\nremove = [\"docker.io/acme/**\"]\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nread = [\"docker.io/**\"]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"30d\"\nprotect = [\"**/python:*\"]\n",
        "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\nkeep = 2\n",
        "[grant]\nremove = [\"**\"]\nmax-removals = 2\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\nmax-bytes = \"20KiB\"\n[guard]\nmin-age = \"0s\"\n",
        "[grant]\nremove = [\"**\"]\nmax-share = \"10%\"\nforce = true\n[guard]\nmin-age = \"0s\"\n",
    ];
    proptest::sample::select(texts.to_vec()).prop_map(grant)
}

/// Whatever cache, config and grant: ties, missing dates and those ahead of now, pins, users, spellings, texts that are
/// no references, denials, guards and caps.
#[test]
fn any_cache_any_config_any_grant() {
    let mut random = TestRunner::deterministic();
    let strategy = (caches(), configs(), grants());
    let (mut plans, mut failures, mut removals) = (0, 0, 0);
    for _ in 0..200 {
        let (cache, config, grant) = strategy.new_tree(&mut random).expect("a case").current();
        let run = PolicyRun::new(now()).with_config(config).with_grant(grant);
        match agreed(&cache, &run) {
            Ok(plan) => {
                plans += 1;
                removals += plan.matches("\"decision\": \"remove\"").count();
            }
            Err(_) => failures += 1,
        }
    }
    // The cases are worth something: most give a plan that removes, and some break a cap or have a useless config.
    assert!(
        plans > 150 && failures > 5 && removals > 100,
        "{plans} plans, {failures} failures, {removals} removals"
    );
}
