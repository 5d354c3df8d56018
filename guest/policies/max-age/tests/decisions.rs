//! What `max-age` decides.

use larder_guest::testing::{FakeCache, FakeImage, NOW, run};
use larder_guest::{Age, Origin, Right};
use max_age::MaxAge;

fn decisions(config: &str, images: impl IntoIterator<Item = FakeImage>) -> Vec<String> {
    let mut cache = FakeCache::new(images);
    run::<MaxAge>(config, &mut cache).unwrap();
    cache.decisions()
}

/// What was not used for longer than the time is removed, to the second; an arrival counts as a use.
#[test]
fn by_last_use() {
    let images = [
        FakeImage::new("docker.io/acme/a:1").created("6d"),
        FakeImage::new("docker.io/acme/b:1").created("8d"),
        FakeImage::new("docker.io/acme/c:1").created("90d").used("7d"),
        FakeImage::new("docker.io/acme/d:1").created("91d").used("7d1s"),
    ];
    assert_eq!(
        decisions(r#"{"max-age": "7d"}"#, images),
        [
            "keep docker.io/acme/a:1: never used and arrived 6d ago, which is within 7d",
            "remove docker.io/acme/b:1: never used and arrived 8d ago, which is longer than 7d",
            "keep docker.io/acme/c:1: last used 7d ago, which is within 7d",
            "remove docker.io/acme/d:1: last used 7d1s ago, which is longer than 7d",
        ]
    );
}

/// Images from an archive wait three times as long, or as long as the operator says; unknown ones do not.
#[test]
fn archives_wait_longer() {
    let images = || {
        [
            FakeImage::new("docker.io/acme/a:1").created("31d").origin(Origin::Archive),
            FakeImage::new("docker.io/acme/b:1").created("32d").origin(Origin::Unknown),
            FakeImage::new("docker.io/acme/c:1").created("90d1s").origin(Origin::Archive),
        ]
    };
    assert_eq!(
        decisions("{}", images()),
        [
            "keep docker.io/acme/a:1: loaded from an archive and never used and arrived 31d ago, which is within 90d",
            "remove docker.io/acme/b:1: never used and arrived 32d ago, which is longer than 30d",
            "remove docker.io/acme/c:1: loaded from an archive and never used and arrived 90d1s ago, which is longer than 90d",
        ]
    );
    assert_eq!(
        decisions(r#"{"archive-max-age": "30d"}"#, images())[0],
        "remove docker.io/acme/a:1: loaded from an archive and never used and arrived 31d ago, which is longer than 30d"
    );
}

/// What is in use or pinned is kept for that reason, and what is denied for the reason given with the denial.
#[test]
fn held_and_denied() {
    let old = |name: &str| FakeImage::new(name).created("80d");
    let images = [
        old("docker.io/acme/a:1").snapshot("before-upgrade"),
        old("docker.io/acme/b:1").pinned(),
        old("docker.io/acme/c:1").refused(Right::Remove),
    ];
    assert_eq!(
        decisions(r#"{"max-age": "7d"}"#, images),
        [
            "keep docker.io/acme/a:1: in use by 1 snapshot",
            "keep docker.io/acme/b:1: pinned by the operator",
            "keep docker.io/acme/c:1: never used and arrived 80d ago, which is longer than 7d; \
             kept because the grant does not let this policy remove it",
        ]
    );
}

/// A tag that was pulled again is as young as its content, and a run with a goal begins with what was unused longest.
#[test]
fn arrivals_and_goals() {
    let image = |name: &str, created: &str| {
        FakeImage::new(&format!("docker.io/acme/{name}")).created(created).layer(name, "1MB")
    };
    let images = [
        image("a", "9d"),
        image("b", "90d").arrived("8d"),
        image("c", "90d").used("70d").arrived("1h"),
        image("d", "30d").used("10d"),
    ];
    let mut cache = FakeCache::new(images).with_goal("1500KB");
    run::<MaxAge>(r#"{"max-age": "7d"}"#, &mut cache).unwrap();
    assert_eq!(cache.staged(), ["docker.io/acme/d", "docker.io/acme/a"]);
    assert_eq!(cache.reason("docker.io/acme/c"), Some("arrived 1h ago, which is within 7d"));
}

/// Without any date an image is kept; a use in the future counts as a use just now.
#[test]
fn odd_dates() {
    let tomorrow = NOW.checked_add(Age::from_days(1)).unwrap();
    let images = [
        FakeImage::new("docker.io/acme/a:1").created("80d").used_at(tomorrow),
        FakeImage::new("docker.io/acme/b:1").used("80d"),
        FakeImage::new("docker.io/acme/c:1"),
    ];
    let mut decisions = decisions(r#"{"max-age": "7d"}"#, images);
    decisions.sort();
    assert_eq!(
        decisions,
        [
            "keep docker.io/acme/a:1: last used in the future, which is within 7d",
            "keep docker.io/acme/c:1: neither a last use nor an arrival is recorded, so its age is unknown",
            "remove docker.io/acme/b:1: last used 80d ago, which is longer than 7d",
        ]
    );
}

/// A config that would remove everything, contradicts itself or cannot be counted is refused with what to write.
#[test]
fn refused_configs() {
    let table = [
        (
            r#"{"max-age": "0d"}"#,
            "config of max-age: `max-age` is 0s, which would remove every image that nothing uses: set it to a time such as `30d`",
        ),
        (
            r#"{"max-age": "30d", "archive-max-age": "10d"}"#,
            "config of max-age: `archive-max-age` is 10d and `max-age` is 30d: an image from an archive may be lost for good, \
             so set `archive-max-age` to at least 30d",
        ),
        (
            r#"{"max-age": "18446744073709551615s"}"#,
            "config of max-age: `max-age` is 213503982334601d7h, which is too long: set a shorter time",
        ),
        (
            r#"{"age": "7d"}"#,
            "config of max-age: unknown key `age`: the keys are `archive-max-age` and `max-age`",
        ),
    ];
    for (config, message) in table {
        assert_eq!(run::<MaxAge>(config, &mut FakeCache::new([])).unwrap_err(), message);
    }
}
