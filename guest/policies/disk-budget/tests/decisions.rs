//! What `disk-budget` decides.

use disk_budget::DiskBudget;
use larder_guest::testing::{FakeCache, FakeImage, run};
use larder_guest::{Level, Right};

fn image(reference: &str, used: &str, layer: &str, size: &str) -> FakeImage {
    FakeImage::new(reference).created("90d").used(used).layer(layer, size).metadata_bytes(0)
}

/// Runs the policy; the decisions in the order of the references.
fn decisions(config: &str, cache: &mut FakeCache) -> Vec<String> {
    run::<DiskBudget>(config, cache).unwrap();
    let mut decisions = cache.decisions();
    decisions.sort_by_key(|line| line.split_once(' ').map(|(_, image)| image.to_owned()));
    decisions
}

/// The least recently used go first, and no more of them than the budget needs.
#[test]
fn least_recently_used_first() {
    let mut cache = FakeCache::new([
        image("acme/a:1", "1d", "a", "100KiB"),
        image("acme/b:1", "40d", "b", "100KiB"),
        image("acme/c:1", "20d", "c", "100KiB"),
        image("acme/d:1", "30d", "d", "100KiB"),
    ]);
    assert_eq!(
        decisions(r#"{"max-bytes": "250KiB"}"#, &mut cache),
        [
            "keep acme/a:1: last used 1d ago; the budget is met without it",
            "remove acme/b:1: last used 40d ago; frees 100KiB of the 150KiB above the budget",
            "keep acme/c:1: last used 20d ago; the budget is met without it",
            "remove acme/d:1: last used 30d ago; frees 100KiB of the 50KiB above the budget",
        ]
    );
    assert_eq!(cache.staged(), ["acme/b:1", "acme/d:1"]);
    assert!(cache.logs().is_empty());
}

/// A budget that is met exactly needs nothing.
#[test]
fn within_the_budget() {
    let mut cache = FakeCache::new([image("acme/a:1", "90d", "a", "100KiB")]);
    let kept = ["keep acme/a:1: the cache is within its budget"];
    assert_eq!(decisions(r#"{"max-bytes": 102400}"#, &mut cache), kept);
    let mut cache = cache.on_disk("400KiB", "1KiB");
    assert_eq!(decisions(r#"{"max-share": "25%", "min-free": "1KiB"}"#, &mut cache), kept);
}

/// A share of the file system and a minimum of free space count as the disk says, the stricter of them.
#[test]
fn shares_and_free_space() {
    let images =
        || (0..4).map(|n| image(&format!("acme/a:{n}"), &format!("{n}d"), &format!("l{n}"), "100KiB"));
    let staged = |config: &str| {
        let mut cache = FakeCache::new(images()).on_disk("1000KiB", "50KiB");
        run::<DiskBudget>(config, &mut cache).unwrap();
        cache.staged().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(staged(r#"{"max-share": "30%"}"#), ["acme/a:3"]);
    assert_eq!(staged(r#"{"min-free": "151KiB"}"#), ["acme/a:3", "acme/a:2"]);
    assert_eq!(staged(r#"{"max-share": "30%", "min-free": "151KiB"}"#), ["acme/a:3", "acme/a:2"]);
}

/// Sizes are not added: layers go with the last image that has them, and what frees nothing stays.
#[test]
fn shared_layers() {
    let mut cache = FakeCache::new([
        image("acme/a:1", "40d", "base", "1MiB").layer("a", "10KiB"),
        image("acme/b:1", "30d", "base", "1MiB"),
        image("acme/c:1", "20d", "base", "1MiB").sandbox("web"),
        image("acme/d:1", "10d", "d", "20KiB"),
    ]);
    assert_eq!(
        decisions(r#"{"max-bytes": "1030KiB"}"#, &mut cache),
        [
            "remove acme/a:1: last used 40d ago; frees 10KiB of the 24KiB above the budget",
            "keep acme/b:1: last used 30d ago; images that stay hold all that it has",
            "keep acme/c:1: in use by 1 sandbox",
            "remove acme/d:1: last used 10d ago; frees 20KiB of the 14KiB above the budget",
        ]
    );
}

/// What freed nothing is asked about again once an image that it shared with has gone, before newer ones.
#[test]
fn freed_by_what_went_before() {
    let mut cache = FakeCache::new([
        image("acme/a:1", "40d", "base", "1MiB"),
        image("acme/b:1", "30d", "base", "1MiB").layer("b", "10KiB"),
        image("acme/c:1", "20d", "c", "2MiB"),
    ]);
    assert_eq!(
        decisions(r#"{"max-bytes": "2MiB"}"#, &mut cache),
        [
            "remove acme/a:1: last used 40d ago; frees 1MiB of the 1MiB above the budget",
            "remove acme/b:1: last used 30d ago; frees 10KiB of the 1MiB above the budget",
            "keep acme/c:1: last used 20d ago; the budget is met without it",
        ]
    );
    assert_eq!(cache.staged(), ["acme/b:1", "acme/a:1"]);
}

/// Images that free something only together go together, and others that free nothing stay.
#[test]
fn freed_together() {
    let mut cache = FakeCache::new([
        image("acme/a:1", "50d", "twins", "1MiB"),
        image("acme/b:1", "40d", "used", "1MiB"),
        image("acme/c:1", "30d", "twins", "1MiB"),
        image("acme/d:1", "20d", "used", "1MiB").sandbox("web"),
        image("acme/e:1", "10d", "twins", "1MiB"),
        image("acme/f:1", "5d", "f", "1MiB"),
    ]);
    assert_eq!(
        decisions(r#"{"max-bytes": "2MiB"}"#, &mut cache),
        [
            "remove acme/a:1: last used 50d ago; frees 1MiB of the 1MiB above the budget",
            "keep acme/b:1: last used 40d ago; the budget is met without it",
            "remove acme/c:1: last used 30d ago; what it shares is freed with the others that go",
            "keep acme/d:1: in use by 1 sandbox",
            "remove acme/e:1: last used 10d ago; what it shares is freed with the others that go",
            "keep acme/f:1: last used 5d ago; the budget is met without it",
        ]
    );
}

/// Tags of one manifest go together, and as late as the one that was used most recently.
#[test]
fn tags_of_one_manifest() {
    let images = || {
        [
            image("acme/a:1", "60d", "a", "100KiB").manifest("sha256:a"),
            image("acme/a:latest", "10d", "a", "100KiB").manifest("sha256:a"),
            image("acme/b:1", "50d", "b", "100KiB"),
        ]
    };
    let mut cache = FakeCache::new(images());
    assert_eq!(
        decisions(r#"{"max-bytes": "100KiB"}"#, &mut cache),
        [
            "keep acme/a:1: last used 10d ago; the budget is met without it",
            "keep acme/a:latest: last used 10d ago; the budget is met without it",
            "remove acme/b:1: last used 50d ago; frees 100KiB of the 100KiB above the budget",
        ]
    );
    let mut cache = FakeCache::new(images());
    run::<DiskBudget>(r#"{"max-bytes": 0}"#, &mut cache).unwrap();
    assert_eq!(cache.staged(), ["acme/b:1", "acme/a:latest", "acme/a:1"]);

    let mut images = images();
    images[0] = images[0].clone().pinned();
    let mut cache = FakeCache::new(images);
    let decisions = decisions(r#"{"max-bytes": 0}"#, &mut cache);
    assert_eq!(decisions[0], "keep acme/a:1: pinned by the operator: this tag, or another of its manifest");
    assert_eq!(
        decisions[1],
        "keep acme/a:latest: pinned by the operator: this tag, or another of its manifest"
    );
}

/// Where what may go is not enough, all of it goes, the operator hears by how much, and the run succeeds.
#[test]
fn a_budget_out_of_reach() {
    let mut cache = FakeCache::new([
        image("acme/a:1", "40d", "a", "100KiB").sandbox("web"),
        image("acme/b:1", "30d", "b", "100KiB").refused(Right::Remove),
        image("acme/c:1", "20d", "c", "100KiB"),
    ]);
    assert_eq!(
        decisions(r#"{"max-bytes": "50KiB"}"#, &mut cache),
        [
            "keep acme/a:1: in use by 1 sandbox",
            "keep acme/b:1: the grant does not let this policy remove it",
            "remove acme/c:1: last used 20d ago; frees 100KiB of the 250KiB above the budget",
        ]
    );
    let warning = "150KiB are left above the budget: \
                   what is left is in use, pinned, or not for this run to remove";
    assert_eq!(cache.logs(), [(Level::Warn, warning.to_owned())]);
}

/// A tag that may not be removed holds every tag of its manifest, known before or only when it is tried.
#[test]
fn one_tag_holds_all() {
    let tags = || {
        [
            image("acme/a:1", "60d", "a", "100KiB").manifest("sha256:a"),
            image("acme/a:2", "50d", "a", "100KiB").manifest("sha256:a"),
            image("acme/b:1", "40d", "b", "100KiB"),
        ]
    };
    let mut images = tags();
    images[0] = images[0].clone().refused(Right::Remove);
    let mut cache = FakeCache::new(images);
    let decisions = decisions(r#"{"max-bytes": "100KiB"}"#, &mut cache);
    let reason = "the grant does not let this policy remove it: this tag, or another of its manifest";
    assert_eq!(decisions[..2], [format!("keep acme/a:1: {reason}"), format!("keep acme/a:2: {reason}")]);
    assert_eq!(cache.staged(), ["acme/b:1"]);
}

/// The caps of the grant end a run early, where the host would refuse it as a whole.
#[test]
fn caps() {
    let images =
        || (1..=4).map(|n| image(&format!("acme/a:{n}"), &format!("{n}d"), &format!("l{n}"), "100KiB"));
    for cache in
        [FakeCache::new(images()).with_max_removals(2), FakeCache::new(images()).with_max_bytes("299KiB")]
    {
        let mut cache = cache;
        assert_eq!(
            decisions(r#"{"max-bytes": 0}"#, &mut cache),
            [
                "keep acme/a:1: last used 1d ago; a cap of the grant is reached",
                "keep acme/a:2: last used 2d ago; a cap of the grant is reached",
                "remove acme/a:3: last used 3d ago; frees 100KiB of the 300KiB above the budget",
                "remove acme/a:4: last used 4d ago; frees 100KiB of the 400KiB above the budget",
            ]
        );
        let warning = "200KiB are left above the budget: a cap of the grant is reached";
        assert_eq!(cache.logs(), [(Level::Warn, warning.to_owned())]);
    }
}

/// A goal is as good as a budget, and the larger of the two counts.
#[test]
fn goals() {
    let images =
        || (1..=4).map(|n| image(&format!("acme/a:{n}"), &format!("{n}d"), &format!("l{n}"), "100KiB"));
    let mut cache = FakeCache::new(images()).with_goal("150KiB");
    run::<DiskBudget>("{}", &mut cache).unwrap();
    assert_eq!(cache.staged(), ["acme/a:4", "acme/a:3"]);
    assert_eq!(cache.reason("acme/a:4"), Some("last used 4d ago; frees 100KiB of the 150KiB to free"));
}

/// Without any date an image goes last; of one instant, images go by their references.
#[test]
fn order_without_dates() {
    let mut cache = FakeCache::new([
        FakeImage::new("acme/a:1").layer("a", "1KiB"),
        image("acme/c:1", "1d", "c", "1KiB"),
        image("acme/b:1", "1d", "b", "1KiB"),
        FakeImage::new("acme/d:1").layer("d", "1KiB").created("2d"),
    ]);
    run::<DiskBudget>(r#"{"max-bytes": 0}"#, &mut cache).unwrap();
    assert_eq!(cache.staged(), ["acme/d:1", "acme/b:1", "acme/c:1", "acme/a:1"]);
}

/// A config without a budget is refused with the keys to set, and a slip in a value with what was expected.
#[test]
fn refused_configs() {
    let table = [
        (
            "{}",
            "config of disk-budget: no budget is set: set at least one of `max-bytes` (such as `50GiB`), `max-share` (such as `25%`) \
             and `min-free` (such as `20GiB`)",
        ),
        (
            r#"{"max-share": "150%"}"#,
            "config of disk-budget: `max-share`: `150%` is not a share: \
             expected a percentage from `0%` to `100%`, such as `25%` or `12.5%`",
        ),
        (
            r#"{"max-size": "1GiB"}"#,
            "config of disk-budget: unknown key `max-size`: the keys are `max-bytes`, `max-share` and `min-free`",
        ),
    ];
    for (config, message) in table {
        assert_eq!(run::<DiskBudget>(config, &mut FakeCache::new([])).unwrap_err(), message);
    }
}

/// Ten thousand images cost a few calls each, those that free nothing too.
#[test]
fn ten_thousand_images() {
    let unique = |n: usize| image(&format!("acme/app{n:05}:1"), &format!("{n}m"), &format!("l{n}"), "1KiB");
    let mut cache = FakeCache::new((0..10_000).map(unique)).with_page(1024);
    run::<DiskBudget>(r#"{"max-bytes": "5000KiB"}"#, &mut cache).unwrap();
    assert_eq!(cache.staged().len(), 5_000);
    assert!(cache.host_calls() < 30_000, "{}", cache.host_calls());

    let held = image("acme/base:1", "1d", "base", "1GiB").sandbox("web");
    let useless = (0..9_999).map(|n| image(&format!("acme/app{n:05}:1"), "40d", "base", "1GiB"));
    let mut cache = FakeCache::new(useless.chain([held])).with_page(1024);
    run::<DiskBudget>(r#"{"max-bytes": 0}"#, &mut cache).unwrap();
    assert!(cache.staged().is_empty());
    assert!(cache.host_calls() < 10_100, "{}", cache.host_calls());
}
