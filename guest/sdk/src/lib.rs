//! What a Rust policy for the Larder image cache builds on.
//!
//! A policy is a WebAssembly component that sees what the cache holds and says what should go. It has no
//! clock, no files and no network: only the cache, as far as the operator's grant reaches.
//!
//! - [`Policy`] is what you implement, [`export_policy!`] makes it the component's export.
//! - [`Cache`] is what you decide on: `larder:image` as a trait. [`Cache::images`] reads it all.
//! - [`Age`], [`Size`], [`Share`] and [`Timestamp`] are for your config and your arithmetic.
//! - [`testing`] is a cache in memory: a policy is tested natively, with no host and no WebAssembly.
//!
//! ```
//! use larder_guest::{Age, Cache, Failure, Policy, Timestamp};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// Removes what was loaded or pulled a long time ago.
//! struct Expire;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! struct Config {
//!     /// Images created longer ago than this are removed.
//!     older_than: Age,
//! }
//!
//! impl Policy for Expire {
//!     const NAME: &'static str = "expire";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const SUMMARY: &'static str = "Removes images created longer ago than a given time.";
//!     type Config = Config;
//!
//!     fn evaluate(config: Config, now: Timestamp, cache: &mut dyn Cache) -> Result<(), Failure> {
//!         for image in cache.images()? {
//!             let reference = &image.handle.reference;
//!             match (image.held_by(), image.handle.created_at) {
//!                 (Some(holder), _) => cache.explain(reference, &holder),
//!                 (None, None) => cache.explain(reference, "has no creation date"),
//!                 (None, Some(created)) => {
//!                     let age = created.age(now).unwrap_or_default();
//!                     if age > config.older_than {
//!                         let reason = format!("created {age} ago, which is longer than {}", config.older_than);
//!                         cache.remove_because(reference, &reason)?;
//!                     } else {
//!                         cache.explain(reference, &format!("created {age} ago"));
//!                     }
//!                 }
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! larder_guest::export_policy!(Expire);
//!
//! // In a test:
//! use larder_guest::testing::{FakeCache, FakeImage, run};
//!
//! let mut cache = FakeCache::new([
//!     FakeImage::new("docker.io/acme/app:1").created("40d"),
//!     FakeImage::new("docker.io/acme/app:2").created("2d"),
//! ]);
//! run::<Expire>(r#"{"older-than": "30d"}"#, &mut cache).unwrap();
//! assert_eq!(cache.staged(), ["docker.io/acme/app:1"]);
//! assert_eq!(cache.reason("docker.io/acme/app:2"), Some("created 2d ago"));
//! ```
//!
//! The library crate of a policy has `crate-type = ["cdylib", "rlib"]`, and depends on this crate, `serde` and
//! `schemars`.

mod cache;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;
mod config;
mod error;
mod policy;
mod reference;
pub mod testing;
mod types;
mod units;

pub use cache::{Cache, Image};
pub use error::{Denial, Error, Right};
pub use policy::{Description, Failure, Policy, describe, evaluate};
pub use reference::{normalize, repository};
pub use types::{
    DiskStatus, ImageConfigDetail, ImageDetail, ImageFilter, ImageHandle, ImageLayerDetail, ImagePruneReport,
    ImageUsage, ImageUsers, Level, Order, Origin,
};
pub use units::{Age, Share, Size, Timestamp, UnitError};
