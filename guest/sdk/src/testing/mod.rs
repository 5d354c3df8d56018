//! A cache in memory, to test a policy with: natively, with no host and no WebAssembly.
//!
//! It answers as the host does: what was removed is no longer listed, every count of bytes is what a further removal
//! would free, an order has no ties, and a misspelt reference is not found. It is less generous where the contract
//! allows that: a page has at most three images, so that a policy which reads only the first one fails its test. The
//! time is always [`NOW`].
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
mod calls;
mod image;
mod ledger;
mod pattern;
mod reference;
mod schema;
mod select;
#[cfg(test)]
mod tests;

use crate::{Policy, Request, Timestamp};

pub use cache::FakeCache;
pub use image::FakeImage;
pub use schema::check_config_schema;
#[cfg(test)]
pub(crate) use schema::schema;

/// The current time of every run of [`run`]: 2026-01-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::new(1_767_225_600, 0).unwrap();

/// Runs a policy on a config in JSON, as the host does: after an error nothing is staged, and of a run with a goal only
/// as much as the goal takes.
///
/// # Errors
///
/// The sentence that would be shown to the operator.
pub fn run<P: Policy>(config: &str, cache: &mut FakeCache) -> Result<(), String> {
    let before = cache.clone();
    let request = Request { now: NOW, goal_bytes: cache.goal_bytes };
    let result = crate::evaluate::<P>(config, request, cache).map_err(crate::Failure::into_sentence);
    let result = match cache.over_budget() {
        Some(error) => Err(error),
        None => result,
    };
    match &result {
        Ok(()) => cache.keep_to_goal(),
        Err(_) => cache.undo(before),
    }
    result
}
