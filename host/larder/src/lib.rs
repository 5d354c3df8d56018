//! Larder: the OCI image cache of microVM sandboxes, with clean-up policies that run in a sandbox of their own.
//!
//! The rooms, from the ground up: each uses only those above it in this list.
//!
//! - [`mod@reference`] and [`pattern`]: names of images and of content; `units`: sizes and ages as people write them;
//!   `records`: what the image API returns
//! - [`error`]: what can go wrong, in every room
//! - [`home`]: where the parts of a home lie, what is wrong with one, opening and refusing
//! - `artifacts`: the files of a cache, who holds them and how they go; no SQL
//! - `catalog`: the index, all SQL there is and nothing but SQL
//! - [`snapshot`]: one state of the cache as a decision sees it, and what images cost
//! - `store`: rows and files together: removing, recovering, collecting garbage, verifying
//! - [`backend`]: which cache the image API works on: [`LocalBackend`], a home of this machine
//! - [`plan`]: plans of what is to go, applying them, and what became of those
//! - [`ingest`]: images in and out, archives and registries
//! - [`maintenance`]: pins, verification, and everything else that an operator asks of a home
//! - [`image`]: the image API, [`Image`], with microsandbox's names and meaning
//! - [`policy`]: policies and what they may do
//!
//! The library prints nothing, never ends the process, and reads the environment in one place only, where it selects
//! the default backend.
//!
//! # On disk
//! A home is microsandbox's: `db/msb.db` is the index, `cache/` has the artifacts. Larder's own tables in the index
//! begin with `larder_`; without them nothing of microsandbox's is lost.

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
pub mod maintenance;
pub mod pattern;
pub mod plan;
pub mod policy;
mod records;
pub mod reference;
pub mod snapshot;
mod store;
mod units;

pub use backend::{Backend, BackendKind, LocalBackend, default_backend, set_default_backend, with_backend};
pub use error::{MicrosandboxError, MicrosandboxResult, Operation, UnsupportedReason};
pub use image::{
    Image, ImageArchiveFormat, ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail,
    ImagePruneReport,
};
