//! Images in and out of a cache.
//!
//! ```text
//! bundle     what images come in: directories and tar archives, files by name
//! source     which images a bundle or a registry holds, for this machine, with what names
//! convert    layers side by side, each through `layer`; then fsmeta and VMDK of each image
//! layer      one blob to one EROFS image, both digests checked on the way
//! tar        tar archives as streams
//! publish    names for what is complete, leases until the rows are in, taken back if they do not get there
//! intake     all of that
//! load       archives in
//! pull       registries in
//! save       archives out
//! ```
//!
//! # Order towards the disk
//! Each artifact is synced, then renamed, then its directory is synced; when all are there, one transaction puts the
//! rows of all images into the index. So no row ever names an artifact that is not whole, and an artifact without a row
//! is an orphan that a prune collects.
//!
//! # Memory
//! Data is streamed in pieces of a few hundred kilobytes, for each layer that is converted at the time. What grows is
//! the tree of names of a layer, and of all layers of an image while they are joined; [`IngestLimits`] bounds it.
//!
//! # Bad input
//! Nothing is written but EROFS images in the cache: a name in a layer is never a name on this machine. Names that are
//! absolute or lead upwards are refused nevertheless, since whoever writes them means harm. The target of a symbolic
//! link is data.

mod bundle;
pub(crate) mod cancel;
mod compression;
mod convert;
mod document;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod intake;
mod layer;
mod limits;
mod load;
mod metadata;
mod platform;
mod progress;
mod publish;
#[cfg(feature = "registry")]
mod pull;
mod save;
mod source;
mod tar;

pub use error::{IngestError, IngestProblem};
pub use limits::IngestLimits;
pub use load::ImageLoad;
pub use platform::Platform;
pub use progress::{LayerOutcome, LayerStep, Progress, ProgressEvent};
#[cfg(feature = "registry")]
pub use pull::{Backoff, Credentials, ImagePull, Proxies, Transport};
pub use save::{ConfigOrigin, ImageSave, SaveError, SaveReport, SavedImage, SavedLayer, SavedManifest};
