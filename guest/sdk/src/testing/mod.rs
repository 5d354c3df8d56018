//! A cache in memory, to test a policy with: natively, with no host and no WebAssembly.
//!
//! It behaves as the contract says: what was removed is no longer listed, and every count of bytes is what a
//! further removal would free. The time is always [`NOW`].
//!
//! ```
//! use larder_guest::Cache;
//! use larder_guest::testing::{FakeCache, FakeImage};
//!
//! let mut cache = FakeCache::new([
//!     FakeImage::new("docker.io/acme/app:1").created("40d").layer("base", "100MB").layer("one", "5MB"),
//!     FakeImage::new("docker.io/acme/app:2").created("2d").layer("base", "100MB").sandbox("web"),
//! ]);
//! assert_eq!(cache.reclaimable_bytes(&["docker.io/acme/app:1"]), Ok(5_004_096));
//! cache.remove("docker.io/acme/app:1", false).unwrap();
//! assert!(cache.remove("docker.io/acme/app:2", false).is_err());
//! ```

mod cache;
mod image;
mod ledger;
mod pattern;
mod schema;

use crate::{Policy, Timestamp};

pub use cache::FakeCache;
pub use image::FakeImage;
pub use schema::check_config_schema;
#[cfg(test)]
pub(crate) use schema::schema;

/// The instant that every run of [`run`] counts as now: 2026-01-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::new(1_767_225_600, 0).unwrap();

/// Runs a policy on a config in JSON, as the host does: after an error nothing is staged.
///
/// # Errors
///
/// The sentence that would go to the operator.
pub fn run<P: Policy>(config: &str, cache: &mut FakeCache) -> Result<(), String> {
    let before = cache.clone();
    crate::evaluate::<P>(config, NOW, cache).map_err(|failure| {
        cache.restore(before);
        failure.into_sentence()
    })
}
