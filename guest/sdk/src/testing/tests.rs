//! The cache in memory keeps to the contract.

use super::*;
use crate::{Cache, Error, Failure, ImageFilter, ImagePruneReport, InvalidReference, Order, Right};

fn sample() -> FakeCache {
    FakeCache::new([
        FakeImage::new("a:1").created("3d").layer("base", "100B").layer("a", "10B").metadata_bytes(1),
        FakeImage::new("b:1").created("2d").layer("base", "100B").layer("b", "20B").metadata_bytes(2),
        FakeImage::new("c:1").created("1d").layer("c", "40B").metadata_bytes(4).manifest("c"),
        FakeImage::new("c:2").created("0s").manifest("c"),
    ])
}

fn names(cache: &FakeCache, filter: &ImageFilter) -> Vec<String> {
    cache.select(filter).unwrap().into_iter().map(|handle| handle.reference).collect()
}

/// What was removed is no longer listed, and bytes are what a further removal frees.
#[test]
fn staging() {
    let mut cache = sample();
    assert_eq!(cache.reclaimable_bytes(&["a:1"]), Ok(11));
    assert_eq!(cache.reclaimable_bytes(&["a:1", "b:1", "b:1"]), Ok(133));
    assert_eq!(cache.reclaimable_bytes(&["c:1"]), Ok(0));
    assert_eq!(cache.reclaimable_bytes(&["c:1", "c:2"]), Ok(44));
    cache.remove("a:1", false).unwrap();
    assert_eq!(cache.get("a:1"), Err(Error::ImageNotFound("a:1".into())));
    assert_eq!(cache.reclaimable_bytes(&["b:1"]), Ok(122));
    let costs = cache.get_costs(Some(&["c:2", "b:1"])).unwrap();
    assert_eq!((costs[0].unique_bytes, costs[0].shared_bytes), (0, 44));
    assert_eq!((costs[1].unique_bytes, costs[1].shared_bytes), (122, 0));
    assert_eq!(cache.staged(), ["a:1"]);
}

/// A removal that is taken back leaves no trace, and a second one is later in the order.
#[test]
fn restoring() {
    let mut cache = sample();
    cache.remove("a:1", false).unwrap();
    cache.remove("b:1", false).unwrap();
    cache.restore("docker.io/library/a:1").unwrap();
    assert_eq!(cache.restore("a:1"), Err(Error::ImageNotFound("a:1".into())));
    assert_eq!(cache.reclaimable_bytes(&["a:1"]), Ok(111));
    cache.remove("a:1", false).unwrap();
    assert_eq!(cache.staged(), ["b:1", "a:1"]);
}

/// What is in use, pinned or not granted is not removed; with force, an image in use loses only its reference. The right
/// that a removal lacks is known before.
#[test]
fn refusals() {
    let mut cache = FakeCache::new([
        FakeImage::new("used:1").created("5d").manifest("m").sandbox("web").layer("l", "1B"),
        FakeImage::new("used:2").created("4d").manifest("m").refused(Right::Force),
        FakeImage::new("pinned:1").created("3d").pinned(),
        FakeImage::new("other:1").created("2d").refused(Right::Remove),
        FakeImage::new("free:1").created("1d").refused(Right::Force),
    ]);
    assert!(cache.inspect("free:1").is_ok());
    let denied = |result: Result<(), Error>| match result {
        Err(Error::Denied(denial)) => Some(denial.right),
        _ => None,
    };
    assert!(
        matches!(cache.remove("used:2", false), Err(Error::ImageInUse(users)) if users.sandboxes == ["web"])
    );
    assert_eq!(denied(cache.remove("used:2", true)), Some(Right::Force));
    assert_eq!(denied(cache.remove("pinned:1", true)), Some(Right::Protected));
    assert_eq!(denied(cache.remove("other:1", true)), Some(Right::Remove));
    let lacks: Vec<_> = cache.get_usage(None).unwrap().into_iter().map(|usage| usage.lacks).collect();
    let force = Some(Right::Force);
    assert_eq!(lacks, [None, Some(Right::Remove), Some(Right::Protected), force, force]);
    // Only an image in use needs the right to force.
    cache.remove("free:1", true).unwrap();
    assert_eq!(cache.prune().unwrap(), ImagePruneReport { bytes_reclaimed: Some(0), ..Default::default() });
    cache.remove("used:1", true).unwrap();
    assert_eq!(cache.reclaimable_bytes(&["used:2"]), Ok(0));
}

/// An image whose config may not be read can be listed all the same.
#[test]
fn inspecting() {
    let cache = FakeCache::new([FakeImage::new("a:1").refused(Right::Inspect)]);
    assert!(matches!(cache.inspect("a:1"), Err(Error::Denied(denial)) if denial.right == Right::Inspect));
    assert_eq!(cache.get_usage(Some(&["a:1"])).unwrap()[0].lacks, None);
}

/// A page has three images, whatever was asked for, starts behind any image, removed ones too, and has them in the
/// order asked for, ties by reference.
#[test]
fn pages() {
    let mut cache = sample();
    let filter = ImageFilter { order: Order::CreatedOldestFirst, limit: Some(1024), ..Default::default() };
    assert_eq!(names(&cache, &filter), ["a:1", "b:1", "c:1"]);
    cache.remove("c:1", false).unwrap();
    let behind = |after: &str| ImageFilter { after: Some(after.into()), ..filter.clone() };
    assert_eq!(names(&cache, &behind("c:1")), ["c:2"]);
    assert_eq!(names(&cache, &behind("docker.io/library/c:1")), ["c:2"]);
    assert!(names(&cache, &behind("c:2")).is_empty());
    assert_eq!(cache.select(&behind("d:1")), Err(Error::ImageNotFound("d:1".into())));
    assert!(matches!(
        cache.select(&behind("no reference")),
        Err(Error::InvalidReference(InvalidReference { text, .. })) if text == "no reference"
    ));
    let arrived_before = NOW.checked_sub("1d".parse().unwrap());
    let pattern = Some("docker.io/library/*:1".into());
    let filter = ImageFilter { reference: pattern, arrived_before, ..Default::default() };
    assert_eq!(names(&cache, &filter), ["b:1", "a:1"]);
    assert_eq!(cache.images().unwrap().len(), 3);

    let ties = FakeCache::new(["b:1", "c:1", "a:1"].map(FakeImage::new));
    for order in [Order::CreatedNewestFirst, Order::ArrivedOldestFirst, Order::LargestFirst] {
        assert_eq!(names(&ties, &ImageFilter { order, ..Default::default() }), ["a:1", "b:1", "c:1"]);
    }
}

/// A tag that was pulled again is as young as its content.
#[test]
fn arrivals() {
    let cache = FakeCache::new([
        FakeImage::new("a:nightly").created("300d").arrived("1h").used("2d"),
        FakeImage::new("a:old").created("2d").arrived("3d"),
    ]);
    let handle = cache.get("a:nightly").unwrap();
    assert_eq!(handle.touched(NOW), "arrived 1h ago");
    assert_eq!(handle.touched_at(), handle.arrived_at);
    // The reference cannot have arrived later than what it names.
    assert_eq!(cache.get("a:old").unwrap().touched(NOW), "never used and arrived 2d ago");
    let filter = ImageFilter { order: Order::ArrivedNewestFirst, ..Default::default() };
    assert_eq!(names(&cache, &filter), ["a:nightly", "a:old"]);
}

/// A reason is kept for what there is or was, in any spelling, and cut; another one is answered with false.
#[test]
fn explanations() {
    let mut cache = sample();
    cache.remove("a:1", false).unwrap();
    assert!(cache.explain("docker.io/library/a:1", "removed"));
    assert!(cache.explain("b:1", &"é".repeat(300)));
    assert!(!cache.explain("b:2", "misspelt") && !cache.explain("no reference", "not one"));
    assert_eq!(cache.reason("a:1"), Some("removed"));
    assert_eq!(cache.reason("b:1").unwrap().len(), 512);
    assert_eq!(cache.reason("b:2"), None);
}

/// A prune takes all that nothing uses, and reports what it frees.
#[test]
fn prune() {
    let mut cache = sample();
    let report = cache.prune().unwrap();
    assert_eq!(report.bytes_reclaimed, Some(177));
    assert_eq!((report.image_refs_removed, report.manifests_removed, report.layers_removed), (4, 3, 4));
    assert!(cache.list().unwrap().is_empty());
    assert_eq!(cache.staged(), ["a:1", "b:1", "c:1", "c:2"]);
}

/// Removes everything, whatever the answers, and fails if its config says so.
struct Sweep;

impl Policy for Sweep {
    const NAME: &'static str = "sweep";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str = "Removes everything.";
    const CONFIG_SCHEMA: &'static str = "{}";
    type Config = std::collections::BTreeMap<String, bool>;

    fn evaluate(config: Self::Config, _: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        for handle in cache.list()?.iter().rev() {
            let _ = cache.remove(&handle.reference, false);
        }
        if config.contains_key("fail") { Err(Failure::new("not today")) } else { Ok(()) }
    }
}

/// After an error nothing is staged.
#[test]
fn an_error_drops_everything() {
    let mut cache = sample();
    assert_eq!(run::<Sweep>(r#"{"fail": true}"#, &mut cache), Err("not today".into()));
    assert_eq!(cache.list().unwrap().len(), 4);
    assert!(cache.staged().is_empty());
    assert_eq!(cache.reclaimable_bytes(&["a:1"]), Ok(11));
}

/// A cap that is exceeded refuses the whole plan, whatever the policy makes of the answer; what remains of it is known
/// before.
#[test]
fn caps() {
    let mut cache = sample().with_max_removals(2).with_max_bytes("132B");
    cache.remove("a:1", false).unwrap();
    let budget = cache.get_budget();
    assert_eq!((budget.removals, budget.bytes), (Some(1), Some(121)));
    let lacks = |cache: &FakeCache, name| cache.get_usage(Some(&[name])).unwrap()[0].lacks;
    assert_eq!(lacks(&cache, "b:1"), Some(Right::Budget));
    assert_eq!(lacks(&cache, "c:1"), None);
    cache.restore("a:1").unwrap();
    assert_eq!(cache.get_budget().removals, Some(2));

    // What a cap has refused can be removed all the same, once another removal is taken back.
    let mut cache = sample().with_max_removals(1);
    cache.remove("a:1", false).unwrap();
    cache.remove("b:1", false).unwrap_err();
    assert!(cache.over_budget().is_some());
    cache.restore("a:1").unwrap();
    assert_eq!(cache.over_budget(), None);
    cache.remove("b:1", false).unwrap();
    assert_eq!(cache.over_budget(), None);

    let mut cache = sample().with_max_removals(3);
    run::<Sweep>("{}", &mut cache).unwrap_err();
    assert!(cache.staged().is_empty());
    let mut cache = sample().with_max_removals(4);
    run::<Sweep>("{}", &mut cache).unwrap();
    assert_eq!(cache.staged().len(), 4);
}

/// Of a run with a goal, the first removals are kept that meet it together.
#[test]
fn goals() {
    for (goal, staged) in [
        ("0B", &[][..]),
        ("1B", &["a:1"]),
        ("11B", &["a:1"]),
        ("12B", &["a:1", "b:1"]),
        ("134B", &["a:1", "b:1", "c:1", "c:2"]),
        ("1MB", &["a:1", "b:1", "c:1", "c:2"]),
    ] {
        let mut cache = sample().with_goal(goal);
        run::<Sweep>("{}", &mut cache).unwrap();
        assert_eq!(cache.staged(), staged, "{goal}");
        assert!(
            cache
                .decisions()
                .iter()
                .filter(|line| line.starts_with("keep"))
                .all(|line| line.contains("goal"))
        );
    }
}

/// A pattern that can match nothing, or that is none, is refused and does not just match nothing.
#[test]
fn impossible_patterns() {
    for (text, problem) in [("acme/app:*", "it can match nothing"), ("[ab]", "not a reference pattern")] {
        let filter = ImageFilter { reference: Some(text.into()), ..Default::default() };
        let invalid = InvalidReference { text: text.into(), problem: problem.into() };
        assert_eq!(sample().select(&filter), Err(Error::InvalidReference(invalid)));
    }
}
