//! What `keep-recent` decides.

use keep_recent::KeepRecent;
use larder_guest::testing::{FakeCache, FakeImage, NOW, run};
use larder_guest::{Age, Right};

fn image(reference: &str, created: &str) -> FakeImage {
    FakeImage::new(reference).created(created)
}

fn decisions(config: &str, images: impl IntoIterator<Item = FakeImage>) -> Vec<String> {
    let mut cache = FakeCache::new(images);
    run::<KeepRecent>(config, &mut cache).unwrap();
    cache.decisions()
}

/// Each repository keeps those that arrived last; other repositories do not count.
#[test]
fn the_newest_of_each_repository() {
    let images = [
        image("docker.io/acme/app:3", "1d"),
        image("docker.io/acme/app:2", "2d"),
        image("docker.io/acme/app:1", "3d"),
        image("quay.io/acme/app:1", "40d"),
        image("localhost:5000/app:1", "50d"),
    ];
    assert_eq!(
        decisions(r#"{"keep": 1}"#, images),
        [
            "keep docker.io/acme/app:3: the newest of docker.io/acme/app",
            "remove docker.io/acme/app:2: 2nd newest of docker.io/acme/app, of which 1 is kept",
            "remove docker.io/acme/app:1: 3rd newest of docker.io/acme/app, of which 1 is kept",
            "keep quay.io/acme/app:1: the newest of quay.io/acme/app",
            "keep localhost:5000/app:1: the newest of localhost:5000/app",
        ]
    );
}

const DIGEST: &str =
    "docker.io/library/python@sha256:00000000000000000000000000000000000000000000000000000000000000ff";

/// Three are kept where the operator does not say, whichever way the repository is spelled.
#[test]
fn defaults_and_spellings() {
    let images = [
        image("python:3.14", "1d"),
        image("docker.io/python:3.13", "2d"),
        image("docker.io/library/python:3.12", "3d"),
        image(DIGEST, "4d"),
    ];
    let decisions = decisions("{}", images);
    assert!(
        decisions[..3].iter().all(|line| line.ends_with(": one of the 3 newest of docker.io/library/python"))
    );
    assert_eq!(
        decisions[3],
        format!("remove {DIGEST}: 4th newest of docker.io/library/python, of which 3 are kept")
    );
}

/// What was used or arrived within the time is kept, to the second.
#[test]
fn used_within() {
    let images = [
        image("docker.io/acme/app:5", "1h").used("30m"),
        image("docker.io/acme/app:4", "2d"),
        image("docker.io/acme/app:3", "30d").used("7d"),
        image("docker.io/acme/app:2", "31d").used("7d1s"),
        image("docker.io/acme/app:1", "32d"),
    ];
    assert_eq!(
        decisions(r#"{"keep": 1, "used-within": "7d"}"#, images),
        [
            "keep docker.io/acme/app:5: the newest of docker.io/acme/app",
            "keep docker.io/acme/app:4: 2nd newest of docker.io/acme/app, never used and arrived 2d ago, which is within 7d",
            "keep docker.io/acme/app:3: 3rd newest of docker.io/acme/app, last used 7d ago, which is within 7d",
            "remove docker.io/acme/app:2: 4th newest of docker.io/acme/app, last used 7d1s ago, which is longer than 7d",
            "remove docker.io/acme/app:1: 5th newest of docker.io/acme/app, never used and arrived 32d ago, which is longer than 7d",
        ]
    );
}

/// What is in use or pinned is kept for that reason, and takes its place among the newest.
#[test]
fn held_images_count() {
    let images = [
        image("docker.io/acme/app:4", "1d").sandbox("web").sandbox("job"),
        image("docker.io/acme/app:3", "2d").pinned(),
        image("docker.io/acme/app:2", "3d").sandbox("web").snapshot("before-upgrade"),
        image("docker.io/acme/app:1", "4d"),
    ];
    let mut cache = FakeCache::new(images);
    run::<KeepRecent>(r#"{"keep": 2}"#, &mut cache).unwrap();
    assert_eq!(
        cache.decisions(),
        [
            "keep docker.io/acme/app:4: in use by 2 sandboxes",
            "keep docker.io/acme/app:3: pinned by the operator",
            "keep docker.io/acme/app:2: in use by 1 sandbox and 1 snapshot",
            "remove docker.io/acme/app:1: 4th newest of docker.io/acme/app, of which 2 are kept",
        ]
    );
}

/// What the grant or a guard does not give away is kept, with the reason that it was denied for.
#[test]
fn denied_removals() {
    let images = [
        image("docker.io/acme/app:2", "1d"),
        image("docker.io/acme/app:1", "2d").refused(Right::Remove),
        image("docker.io/acme/app:0", "3d").refused(Right::Protected),
    ];
    assert_eq!(
        decisions(r#"{"keep": 1}"#, images)[1..],
        [
            "keep docker.io/acme/app:1: 2nd newest of docker.io/acme/app, of which 1 is kept; \
             kept because the grant does not let this policy remove it",
            "keep docker.io/acme/app:0: 3rd newest of docker.io/acme/app, of which 1 is kept; \
             kept because the operator protects it",
        ]
    );
}

/// A cap of the grant refuses the whole plan: nothing is staged, and the operator hears why.
#[test]
fn over_the_cap() {
    let mut cache = FakeCache::new([
        image("docker.io/acme/app:3", "1d"),
        image("docker.io/acme/app:2", "2d"),
        image("docker.io/acme/app:1", "3d"),
    ])
    .with_max_removals(1);
    let error = run::<KeepRecent>(r#"{"keep": 1}"#, &mut cache).unwrap_err();
    assert_eq!(error, "the policy wants to remove more than its grant allows");
    assert!(cache.staged().is_empty());
}

/// Without an arrival an image is kept and takes no other's place; one from the future is the newest.
#[test]
fn odd_dates() {
    let tomorrow = NOW.checked_add(Age::from_days(1)).unwrap();
    let images = [
        FakeImage::new("docker.io/acme/app:3").created_at(tomorrow),
        image("docker.io/acme/app:2", "1d").used_at(tomorrow),
        FakeImage::new("docker.io/acme/app:1").used("90d"),
    ];
    assert_eq!(
        decisions(r#"{"keep": 1, "used-within": "1h"}"#, images),
        [
            "keep docker.io/acme/app:3: the newest of docker.io/acme/app",
            "keep docker.io/acme/app:2: 2nd newest of docker.io/acme/app, last used in the future, which is within 1h",
            "keep docker.io/acme/app:1: its arrival is not recorded, so its place in docker.io/acme/app is unknown",
        ]
    );
}

/// Images of one instant are told apart by their references, in whichever order the cache lists them.
#[test]
fn ties() {
    let names = ["docker.io/acme/app:b", "docker.io/acme/app:a", "docker.io/acme/app:c"];
    for turn in 0..3 {
        let mut names = names;
        names.rotate_left(turn);
        let mut cache = FakeCache::new(names.map(|name| image(name, "1d")));
        run::<KeepRecent>(r#"{"keep": 1}"#, &mut cache).unwrap();
        assert_eq!(cache.staged(), ["docker.io/acme/app:c", "docker.io/acme/app:b"]);
    }
}

/// A config that would remove everything, or that has a slip, is refused with what to write.
#[test]
fn refused_configs() {
    let table = [
        (
            r#"{"keep": 0}"#,
            "config of keep-recent: `keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: \
             set `keep` to at least 1, or set `used-within`",
        ),
        (r#"{"kep": 2}"#, "config of keep-recent: unknown key `kep`: the keys are `keep` and `used-within`"),
        (r#"{"keep": -1}"#, "config of keep-recent: `keep`: invalid value: integer `-1`, expected u32"),
    ];
    for (config, message) in table {
        assert_eq!(run::<KeepRecent>(config, &mut FakeCache::new([])).unwrap_err(), message);
    }
    let only_used = decisions(r#"{"keep": 0, "used-within": "1d"}"#, [image("docker.io/acme/app:1", "1h")]);
    assert!(only_used[0].starts_with("keep "), "{only_used:?}");
}

/// A tag that was pulled again is as young as its content: it takes the first place, and its age counts from then.
#[test]
fn pulled_again() {
    let images = || {
        [
            image("docker.io/acme/app:2", "1d").used("1d"),
            image("docker.io/acme/app:1", "2d").used("2d"),
            image("docker.io/acme/app:nightly", "300d").used("200d").arrived("1h"),
        ]
    };
    assert_eq!(
        decisions(r#"{"keep": 1}"#, images()),
        [
            "remove docker.io/acme/app:2: 2nd newest of docker.io/acme/app, of which 1 is kept",
            "remove docker.io/acme/app:1: 3rd newest of docker.io/acme/app, of which 1 is kept",
            "keep docker.io/acme/app:nightly: the newest of docker.io/acme/app",
        ]
    );
    assert_eq!(
        decisions(r#"{"keep": 0, "used-within": "2h"}"#, images())[2],
        "keep docker.io/acme/app:nightly: 1st newest of docker.io/acme/app, arrived 1h ago, which is within 2h"
    );
}

/// A run with a goal removes what arrived first, and no more than the goal takes.
#[test]
fn goals() {
    let images = (1..=4)
        .map(|n| image(&format!("docker.io/acme/app:{n}"), &format!("{n}d")).layer(&n.to_string(), "1MB"));
    let mut cache = FakeCache::new(images).with_goal("1500KB");
    run::<KeepRecent>(r#"{"keep": 1}"#, &mut cache).unwrap();
    assert_eq!(cache.staged(), ["docker.io/acme/app:4", "docker.io/acme/app:3"]);
}

/// Ten thousand images are read in pages, and cost one call each besides.
#[test]
fn ten_thousand_images() {
    let images = (0..10_000).map(|n| image(&format!("docker.io/acme/app{}:v{n}", n / 8), &format!("{n}m")));
    let mut cache = FakeCache::new(images).with_page(1024);
    run::<KeepRecent>(r#"{"keep": 2}"#, &mut cache).unwrap();
    assert_eq!(cache.staged().len(), 7_500);
    assert!(cache.host_calls() <= 10_000 + 7_500 + 30, "{}", cache.host_calls());
}
