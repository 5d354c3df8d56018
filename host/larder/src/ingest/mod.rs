//! Loading and pulling images into a cache, and saving images from it.
//!
//! ```text
//! input      what is loaded: a path, or something that is open already
//! streams    pipes and the like, which may keep the work waiting for ever
//! bundle     the container of images: directories and tar archives, files by name
//! source     the images for a platform in a bundle or a registry, with their names
//! blobs      sources of the blobs of layers
//! work       what is worked on, in batches
//! convert    layers in parallel, each through `layer`
//! join       fsmeta and VMDK of each image
//! layer      one blob to one EROFS image, with checks of both digests
//! whiteout   names in a layer that remove something, or that AUFS left there
//! tar        tar archives as streams
//! limits     limits on what an image may use; `account` counts what it does use
//! publish    names for complete artifacts, leases until the rows are in, undone if that fails
//! kept       complete layers of a pull that failed
//! room       room for what is taken in, before its first byte
//! intake     all of these in order
//! load       archives to the cache
//! pull       registries to the cache
//! save       the cache to archives
//! ```
//!
//! # Order towards the disk
//! Each artifact is synced, then renamed. When the layers and joined files of an image have their names, their directories are
//! synced, its metadata is written and synced, and one transaction adds its rows to the index. So no row ever names an incomplete
//! artifact, and an artifact without a row is an orphan that a prune collects.
//!
//! # Memory
//! Data is streamed in pieces of a few hundred kilobytes per layer in progress. The memory that grows is the tree of
//! names of a layer, and of all layers of an image while they are joined. [`IngestLimits`] bounds it.
//!
//! # Bad input
//! Layers are written only as EROFS images in the cache: a name in a layer is never a name on this machine. Names are
//! relative to the root of the layer or archive, with or without a slash at their beginning. Names that lead upwards are
//! refused, since only a malicious archive has them. The target of a symbolic link is data; where an entry of the layer
//! lies below the link, it is followed within the names of the layer.

mod account;
mod blobs;
mod bundle;
pub(crate) mod cancel;
mod compression;
mod convert;
mod document;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod intake;
mod join;
mod kept;
mod layer;
mod limits;
mod load;
mod metadata;
mod platform;
mod progress;
mod publish;
#[cfg(feature = "registry")]
mod pull;
mod room;
mod save;
mod source;
mod streams;
mod tar;
mod whiteout;
mod work;

pub use error::{IngestError, IngestProblem};
pub use limits::{IngestLimits, LimitKey, LimitUnit, UnknownLimit};
pub use load::ImageLoad;
pub use platform::{Platform, PlatformError};
pub use progress::{LayerOutcome, LayerStep, Progress, ProgressEvent};
#[cfg(feature = "registry")]
pub use pull::ImagePull;
pub use room::{AsItIs, MakeRoom};
pub use save::{
    ConfigOrigin, GzipLevel, ImageSave, LayerCompression, SaveError, SaveReport, SavedImage, SavedLayer,
    SavedManifest, ZstdLevel,
};

#[cfg(feature = "registry")]
pub use crate::registry::{
    Authorities, Backoff, Credentials, HomeRegistries, Proxies, Transport, is_loopback,
};
