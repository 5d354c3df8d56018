//! Larder: the OCI image cache of microVM sandboxes, with clean-up policies that run in a sandbox of their own.
//!
//! The modules, from the ground up. Each uses only those above it in this list.
//!
//! - [`mod@reference`] and [`pattern`]: names of images and of content; `units`: sizes and ages in the form that
//!   people write; `records`: the values that the image API returns
//! - [`error`]: the errors of all modules
//! - [`home`]: the paths of a home, its problems, and opening it or refusing to
//! - `artifacts`: the files of a cache, their leases and their deletion; no SQL
//! - `catalog`: the index; all SQL and nothing else
//! - [`snapshot`]: one state of the cache for a decision, and the costs of images
//! - `store`: rows and files together: removing, recovering, collecting garbage, verifying
//! - [`backend`]: the choice of the cache for the image API: [`LocalBackend`], a home on this machine
//! - [`plan`]: plans of removals, applying them, and their history
//! - `registry`: a client of registries, and the credentials for them
//! - [`ingest`]: loading, pulling and saving images: archives and registries
//! - [`maintenance`]: pins, verification, and an operator's other tasks
//! - [`image`]: the image API, [`Image`], with microsandbox's names and meaning
//! - [`policy`]: policies and their permissions
//!
//! The library prints nothing, never ends the process, and reads the environment only to select the default backend.
//!
//! # On disk
//! A home has the format of microsandbox: `db/msb.db` is the index, `cache/` has the artifacts. The names of Larder's
//! own tables in the index begin with `larder_`. Dropping them loses nothing of microsandbox's.

mod artifacts;
pub mod backend;
mod catalog;
pub mod error;
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub mod failpoint;
#[cfg(not(feature = "failpoints"))]
mod failpoint;
pub mod home;
pub mod image;
pub mod ingest;
#[cfg(feature = "policy")]
pub mod job;
pub mod maintenance;
pub mod pattern;
pub mod plan;
pub mod policy;
mod records;
pub mod reference;
#[cfg(feature = "registry")]
mod registry;
pub mod snapshot;
mod store;
mod units;

pub use backend::{Backend, BackendKind, LocalBackend, default_backend, set_default_backend, with_backend};
pub use error::{MicrosandboxError, MicrosandboxResult, Operation, UnsupportedReason};
pub use image::{
    Image, ImageArchiveFormat, ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail,
    ImagePruneReport,
};
