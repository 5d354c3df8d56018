//! The library for policies in Rust of the Larder image cache.
//!
//! A policy is a WebAssembly component that sees what the cache has and decides what it should lose. It has no
//! clock, no files and no network: only the cache, as far as the operator's grant reaches.
//!
//! - [`Policy`] is the trait to implement, and [`export_policy!`] makes it the component's export.
//! - [`Cache`] is `larder:image` as a trait. [`Cache::images`] reads it all.
//! - [`Age`], [`Size`], [`Share`] and [`Timestamp`] are for configs and arithmetic.
//! - [`testing`] is a cache in memory: a policy is tested natively, with no host and no WebAssembly.
//!
//! ```
//! use larder_guest::{Age, Cache, Failure, Policy, Request};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// Removes images that arrived a long time ago.
//! struct Expire;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! struct Config {
//!     /// Images that arrived longer ago than this are removed.
//!     older_than: Age,
//! }
//!
//! impl Policy for Expire {
//!     const NAME: &'static str = "expire";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const SUMMARY: &'static str = "Removes images that arrived longer ago than a given time.";
//!     const CONFIG_SCHEMA: &'static str = r#"{
//!         "$schema": "https://json-schema.org/draft/2020-12/schema",
//!         "title": "Config",
//!         "type": "object",
//!         "properties": {
//!             "older-than": {
//!                 "description": "Images that arrived longer ago than this are removed.",
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
//!     fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
//!         for image in cache.images()? {
//!             let reference = &image.handle.reference;
//!             let age = image.handle.arrived_at.map(|arrived| arrived.age(request.now).unwrap_or_default());
//!             let reason = match (image.held_by(), age) {
//!                 (Some(holder), _) => holder,
//!                 (None, None) => "its arrival is not recorded".to_owned(),
//!                 (None, Some(age)) if age > config.older_than => {
//!                     let reason = format!("arrived {age} ago, which is longer than {}", config.older_than);
//!                     cache.remove_because(reference, &reason)?;
//!                     continue;
//!                 }
//!                 (None, Some(age)) => format!("arrived {age} ago"),
//!             };
//!             cache.explain(reference, &reason);
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
//!     FakeImage::new("docker.io/acme/app:1").arrived("40d"),
//!     FakeImage::new("docker.io/acme/app:2").arrived("2d"),
//! ]);
//! run::<Expire>(r#"{"older-than": "30d"}"#, &mut cache).unwrap();
//! assert_eq!(cache.staged(), ["docker.io/acme/app:1"]);
//! assert_eq!(cache.reason("docker.io/acme/app:2"), Some("arrived 2d ago"));
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
#[cfg(any(test, target_arch = "wasm32"))]
mod memory;
mod policy;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod types;
mod units;

pub use cache::{Cache, Image};
pub use error::{Denial, Error, InvalidReference, Right};
pub use policy::{Description, Failure, Policy, Request, describe, evaluate};
pub use types::{
    Budget, DiskStatus, ImageConfigDetail, ImageCost, ImageDetail, ImageFilter, ImageHandle, ImageHistory,
    ImageLayerDetail, ImagePruneReport, ImageUsage, ImageUsers, Level, Order, Origin,
};
pub use units::{Age, Share, Size, Timestamp, UnitError};
