//! What the policy decides, natively: no host and no WebAssembly. `cargo test` runs it.

use larder_guest::testing::{FakeCache, FakeImage, run};
use policy::Forgotten;

/// What was not used for longer than the time is removed, and what something uses stays.
#[test]
fn forgotten_images_go() {
    let mut cache = FakeCache::new([
        FakeImage::new("docker.io/acme/app:3").created("2d"),
        FakeImage::new("docker.io/acme/app:2").created("40d").used("31d"),
        FakeImage::new("docker.io/acme/app:1").created("60d").sandbox("web"),
    ]);
    run::<Forgotten>(r#"{"max-age-days": 30}"#, &mut cache).unwrap();
    assert_eq!(
        cache.decisions(),
        [
            "keep docker.io/acme/app:3: not used for 2d, which is within 30d",
            "remove docker.io/acme/app:2: not used for 31d, which is longer than 30d",
            "keep docker.io/acme/app:1: in use",
        ]
    );
}

/// A slip in the config is refused with the key that there is.
#[test]
fn slips_are_refused() {
    let error = run::<Forgotten>(r#"{"max-age": 30}"#, &mut FakeCache::new([])).unwrap_err();
    assert!(error.ends_with("unknown key `max-age`: the only key is `max-age-days`"), "{error}");
}
