//! Larder: the OCI image cache of microVM sandboxes, with clean-up policies that run in a sandbox of their own.
//!
//! - [`image`]: the image API, [`Image`] and the records it returns, with microsandbox's names and meaning
//! - [`backend`]: which cache that API works on: [`LocalBackend`], a home of this machine
//! - [`ingest`]: images in and out, archives and registries
//! - [`snapshot`]: one state of the cache as a decision sees it, and what images cost
//! - [`policy`]: policies, what they may do, the plans they make and what became of those
//! - [`maintenance`]: pins, verification, and everything else that an operator asks of a home
//! - [`mod@reference`] and [`pattern`]: names of images and of content
//! - [`error`]: what can go wrong
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
