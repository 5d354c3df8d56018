//! Grant × guard × state, drawn at random: what a plan does when it is applied is what a second, slow reading of the rules
//! says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use larder::ImagePruneReport;
use larder::LocalBackend;
use larder::backend::CacheOwner;
use larder::plan::{Guard, Maker, Plan, PlanEntry, PlanPolicy};
use larder::policy::{Grant, GrantDocument, Share};
use larder_tests::{Home, run};
use proptest::prelude::*;

use super::{guard, now, patterns};

/// What is known of an image, in hours before now.
#[derive(Debug, Clone)]
struct Image {
    reference: &'static str,
    created: Option<i64>,
    manifest: Option<i64>,
    recorded: Option<i64>,
    used: Option<i64>,
    is_in_use: bool,
    is_pinned: bool,
    /// Of a plan: whether it removes the image, and whether by force.
    is_removed: bool,
    is_forced: bool,
}

/// A guard, in hours.
#[derive(Debug, Clone)]
struct Guarding {
    protect: Vec<usize>,
    min_age: Option<u64>,
    keep: u32,
}

#[derive(Debug, Clone)]
struct Case {
    images: Vec<Image>,
    /// That of the home, and that which the plan was made under.
    guards: [Guarding; 2],
    remove: Vec<usize>,
    force: bool,
    share: Option<u32>,
    made_by: Maker,
}

const REFERENCES: [&str; 8] = [
    "docker.io/acme/app:1",
    "acme/app:2",
    "docker.io/acme/app:3",
    "docker.io/acme/base:1",
    "docker.io/acme/base:2",
    "python:3",
    "docker.io/library/python:4",
    "quay.io/acme/app:1",
];

/// Patterns, and the references that each matches by its meaning.
const PATTERNS: [(&str, [bool; 8]); 6] = [
    ("**", [true; 8]),
    ("docker.io/acme/**", [true, true, true, true, true, false, false, false]),
    ("docker.io/acme/app", [true, true, true, false, false, false, false, false]),
    ("docker.io/*/*:1", [true, false, false, true, false, false, false, false]),
    ("docker.io/library/python:3", [false, false, false, false, false, true, false, false]),
    ("quay.io/acme/*", [false, false, false, false, false, false, false, true]),
];

fn repository(reference: &str) -> &'static str {
    ["acme/base", "quay.io/acme/app", "acme/app", "python"]
        .into_iter()
        .find(|name| reference.contains(name))
        .expect("a repository")
}

fn is_matched(patterns: &[usize], reference: &str) -> bool {
    let place = REFERENCES.iter().position(|other| *other == reference).expect("a reference");
    patterns.iter().any(|&pattern| PATTERNS[pattern].1[place])
}

/// What the design says of a plan: the references that are left, or none where it is refused as a whole. The images are in
/// the order of a listing.
fn expected(case: &Case) -> Option<BTreeSet<&'static str>> {
    let by_policy = case.made_by == Maker::Policy;
    let removed = || case.images.iter().filter(|image| image.is_removed);
    if removed().any(|image| by_policy && !is_matched(&case.remove, image.reference))
        || removed().any(|image| image.is_forced && !(by_policy && case.force))
    {
        return None;
    }
    let min_age = case.guards.iter().filter_map(|guard| guard.min_age).max();
    let min_age = min_age.unwrap_or(if by_policy { 1 } else { 0 });
    let keep = case.guards.iter().map(|guard| guard.keep).max().unwrap_or_default();
    let share = case.share.filter(|_| by_policy).map(|percent| case.images.len() as u32 * percent / 100);
    let mut left: BTreeSet<&str> = case.images.iter().map(|image| image.reference).collect();
    // In hours ago: the last to arrive stay, and what arrived at an unknown time.
    let arrived = |image: &Image| [image.created, image.manifest, image.recorded].into_iter().flatten().min();
    let mut in_order: Vec<&Image> = removed().rev().collect();
    in_order.sort_by_key(|image| arrived(image).map_or(i64::MAX, |arrived| -arrived));
    for image in in_order {
        let arrived = arrived(image);
        let age = arrived.map(|arrived| image.used.map_or(arrived, |used| used.min(arrived)));
        let others = left.iter().filter(|other| repository(other) == repository(image.reference)).count();
        let stays = image.is_pinned
            || image.is_in_use && !image.is_forced
            || case.guards.iter().any(|guard| is_matched(&guard.protect, image.reference))
            || min_age > 0 && age.is_none_or(|age| age < min_age as i64)
            || others <= keep as usize
            || share.is_some_and(|share| case.images.len() - left.len() >= share as usize);
        if !stays {
            left.remove(image.reference);
        }
    }
    Some(left)
}

fn hours() -> impl Strategy<Value = Option<i64>> {
    prop::sample::select(vec![None, Some(0), Some(1), Some(3), Some(10), Some(100)])
}

fn lists() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..PATTERNS.len(), 0..2)
}

fn guards() -> impl Strategy<Value = Guarding> {
    let min_age = prop::sample::select(vec![None, Some(0), Some(2), Some(20)]);
    (lists(), min_age, 0..3_u32).prop_map(|(protect, min_age, keep)| Guarding { protect, min_age, keep })
}

fn images() -> impl Strategy<Value = Vec<Image>> {
    let often = || prop::bool::weighted(0.7);
    let seldom = || prop::bool::weighted(0.2);
    let image = (hours(), hours(), hours(), seldom(), seldom(), often(), seldom());
    prop::collection::vec(image, 8).prop_map(|facts| {
        facts
            .into_iter()
            .enumerate()
            .map(|(place, (manifest, recorded, used, is_in_use, is_pinned, is_removed, is_forced))| Image {
                reference: REFERENCES[place],
                // Of times that are the same the names decide, which is not the matter here.
                created: (place != 3).then_some(50 + place as i64),
                manifest,
                recorded: recorded.filter(|_| place % 3 == 0),
                used,
                is_in_use,
                is_pinned,
                is_removed,
                is_forced: is_forced && is_removed && is_in_use,
            })
            .collect()
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let wide = prop_oneof![3 => Just(vec![0]), 1 => lists()];
    let share = prop::option::weighted(0.3, prop::sample::select(vec![10, 25, 50, 100]));
    let made_by = prop_oneof![3 => Just(Maker::Policy), 1 => Just(Maker::Prune)];
    (images(), [guards(), guards()], wide, prop::bool::weighted(0.7), share, made_by).prop_map(
        |(images, guards, remove, force, share, made_by)| Case {
            images,
            guards,
            remove,
            force,
            share,
            made_by,
        },
    )
}

fn before(hours: Option<i64>) -> Option<String> {
    hours.map(|hours| (now() - TimeDelta::hours(hours)).format("%Y-%m-%d %H:%M:%S").to_string())
}

/// Makes a home with the images of a case, in the state that a plan is made of, and puts them in the order of a listing.
async fn prepare(home: &Home, local: &LocalBackend, case: &mut Case) {
    // The first change makes Larder's own tables.
    local.record_failure(larder::plan::FailedRun::new("none")).await.expect("on record");
    let index = home.index();
    for (number, image) in (1_i64..).zip(&case.images) {
        let digest = format!("sha256:{number:064x}");
        index
            .execute(
                "INSERT INTO manifest (id, digest, created_at) VALUES (?1, ?2, ?3)",
                (number, &digest, before(image.manifest)),
            )
            .expect("a manifest");
        index
            .execute(
                "INSERT INTO image_ref (id, reference, manifest_id, created_at, updated_at) VALUES (?1, ?2, ?1, ?3, ?4)",
                (number, image.reference, before(image.created), before(image.used)),
            )
            .expect("a reference");
        let key: larder::reference::Reference = image.reference.parse().expect("a reference");
        if let Some(recorded) = before(image.recorded) {
            index
                .execute(
                    "INSERT INTO larder_origin (reference, origin, recorded_at) VALUES (?1, 'registry', ?2)",
                    (key.as_str(), recorded),
                )
                .expect("an origin");
        }
    }
    let listed = local.snapshot().await.expect("a snapshot").images().expect("the images");
    let order: BTreeMap<String, usize> = listed
        .iter()
        .enumerate()
        .map(|(place, image)| (image.handle.reference().to_owned(), place))
        .collect();
    case.images.sort_by_key(|image| order[image.reference]);
}

/// Users and pins come after the plan.
fn use_and_pin(home: &Home, case: &Case) {
    let index = home.index();
    for (number, image) in (1_i64..).zip(&case.images) {
        if image.is_in_use {
            index
                .execute(
                    "INSERT INTO sandbox (id, name, config, status) VALUES (?1, 'box' || ?1, '{}', 'running')",
                    [number],
                )
                .and_then(|_| {
                    index.execute(
                        "INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode)
                         SELECT ?1, manifest_id, 'layered' FROM image_ref WHERE reference = ?2",
                        (number, image.reference),
                    )
                })
                .expect("a sandbox");
        }
        if image.is_pinned {
            let key: larder::reference::Reference = image.reference.parse().expect("a reference");
            index
                .execute("INSERT INTO larder_pin (reference, created_at) VALUES (?1, '')", [key.as_str()])
                .expect("a pin");
        }
    }
}

fn texts(list: &[usize]) -> Vec<&'static str> {
    list.iter().map(|&pattern| PATTERNS[pattern].0).collect()
}

fn guard_of(guarding: &Guarding) -> Guard {
    Guard::default()
        .with_protect(patterns(&texts(&guarding.protect)))
        .with_min_age(guarding.min_age.map(|hours| Duration::from_secs(3600 * hours)))
        .with_keep(guarding.keep)
}

async fn plan(local: &LocalBackend, case: &Case) -> Plan {
    let listed = local.snapshot().await.expect("a snapshot").images().expect("the images");
    let entries: Vec<PlanEntry> = listed
        .iter()
        .zip(&case.images)
        .map(|(listed, image)| {
            assert_eq!(listed.handle.reference(), image.reference);
            if image.is_removed {
                PlanEntry::remove(&listed.handle, "decided", 0, image.is_forced)
            } else {
                PlanEntry::keep(&listed.handle, "decided")
            }
        })
        .collect();
    let image_refs_removed = case.images.iter().filter(|image| image.is_removed).count() as u32;
    let report = ImagePruneReport { image_refs_removed, ..ImagePruneReport::default() };
    let made_at: DateTime<Utc> = now() - TimeDelta::days(90);
    let mut plan = Plan::new(case.made_by, made_at, entries, Vec::new(), report);
    plan.home = Some(local.identity().await.expect("the home"));
    plan.guard = Some(guard_of(&case.guards[1]));
    if case.made_by == Maker::Policy {
        let hash = format!("sha256:{}", "0".repeat(64));
        plan.policy = Some(PlanPolicy { name: "drawn".to_owned(), version: "1.0.0".to_owned(), hash });
        plan.config = Some(serde_json::json!({}));
        let mut grant = Grant::default().with_remove(patterns(&texts(&case.remove))).with_force(case.force);
        grant.max_share = case.share.map(Share::percent);
        plan.grant = Some(GrantDocument::default().with_grant(grant));
    }
    plan
}

/// The guard of the home as its file has it.
fn written(guarding: &Guarding) -> String {
    let min_age = guarding.min_age.map(|hours| format!("min-age = \"{hours}h\"\n")).unwrap_or_default();
    format!("[guard]\nprotect = {:?}\nkeep = {}\n{min_age}", texts(&guarding.protect), guarding.keep)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever a plan was made under, applying it does what the rules say of the state that is found then, and every image
    /// that was to go and stays has a reason.
    #[test]
    fn applying_keeps_to_the_rules(mut case in cases()) {
        let home = Home::made();
        run(async {
            let local = home.open().await;
            // The rows have no files.
            local.claim_cache(&CacheOwner::Nobody).await.expect("claimed");
            prepare(&home, &local, &mut case).await;
            let plan = plan(&local, &case).await;
            use_and_pin(&home, &case);
            guard(&home, &written(&case.guards[0]));
            let wanted: BTreeSet<_> = case.images.iter().filter(|image| image.is_removed).map(|image| image.reference).collect();
            let applied = local.apply(&plan).await;
            let left = home.texts("SELECT reference FROM image_ref");
            match expected(&case) {
                None => {
                    prop_assert!(applied.is_err());
                    prop_assert_eq!(left.len(), 8);
                }
                Some(expected) => {
                    let report = applied.expect("a report");
                    let left: BTreeSet<&str> = left.iter().map(String::as_str).collect();
                    prop_assert_eq!(&left, &expected, "{:?}", report.spared);
                    let spared: BTreeSet<&str> = report.spared.iter().map(|image| image.reference.as_str()).collect();
                    prop_assert_eq!(spared, wanted.intersection(&expected).copied().collect::<BTreeSet<_>>());
                }
            }
            Ok(())
        })?;
    }
}
