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
//!     const CONFIG_SCHEMA: &'static str = r#"{
//!         "$schema": "https://json-schema.org/draft/2020-12/schema",
//!         "title": "Config",
//!         "type": "object",
//!         "properties": {
//!             "older-than": {
//!                 "description": "Images created longer ago than this are removed.",
//!                 "type": "string",
//!                 "pattern": "^([0-9]+[wdhms])+$",
//!                 "examples": ["30d", "12h", "1w2d"]
//!             }
//!         },
//!         "required": ["older-than"],
//!         "additionalProperties": false
//!     }"#;
//!     type Config = Config;
//!
//!     fn evaluate(config: Config, now: Timestamp, cache: &mut impl Cache) -> Result<(), Failure> {
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
//! use larder_guest::testing::{FakeCache, FakeImage, check_config_schema, run};
//!
//! check_config_schema::<Expire>("config.schema.json");
//! let mut cache = FakeCache::new([
//!     FakeImage::new("docker.io/acme/app:1").created("40d"),
//!     FakeImage::new("docker.io/acme/app:2").created("2d"),
//! ]);
//! run::<Expire>(r#"{"older-than": "30d"}"#, &mut cache).unwrap();
//! assert_eq!(cache.staged(), ["docker.io/acme/app:1"]);
//! assert_eq!(cache.reason("docker.io/acme/app:2"), Some("created 2d ago"));
//! ```
//!
//! # The crate of a policy
//!
//! Its library has `crate-type = ["cdylib", "rlib"]`, and depends on this crate and `serde`.
//!
//! The component has the schema of its config as text, and nothing that generates it, which would be half of the
//! component. So `schemars` is a development dependency, and in place of what the example has for brevity
//!
//! - the config has `#[cfg_attr(test, derive(schemars::JsonSchema))]`,
//! - the policy has `const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");`,
//! - a unit test calls [`testing::check_config_schema`]. `LARDER_WRITE_CONFIG_SCHEMA=1 cargo test` writes the file,
//!   after each change of the config; for the first time, begin with a file that has `{}`.

mod cache;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;
mod config;
mod error;
mod policy;
mod reference;
#[cfg(not(target_arch = "wasm32"))]
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
