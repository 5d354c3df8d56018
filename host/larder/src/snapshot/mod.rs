//! One state of the cache, as a decision sees it: the images, who needs them, and what they cost.
//!
//! A [`CacheSource`] answers from one unchanging state: an open read transaction on a home, or a scenario in
//! memory. Whoever decides (a policy run, a plain prune, `df`) works on it and never on the live index, so that
//! what it is shown cannot change under it; what is decided is checked against the live index when it is applied.

mod costs;
mod memory;

use serde::{Deserialize, Serialize};

pub use costs::{
    CostGraph, CostGraphBuilder, FileCost, Freed, HardLinks, LayerId, ManifestId, Removal, Sharing,
};
pub use memory::{MemoryCache, MemoryImage};

use crate::error::MicrosandboxResult;
use crate::image::{ImageDetail, ImageHandle};

/// Where an image came from, and so whether it can be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Pulled: the registry may serve it again.
    Registry,
    /// Loaded from an archive: removing it may lose it for good.
    Archive,
    /// Not recorded.
    #[default]
    Unknown,
}

/// What needs an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageUsers {
    /// Names of the sandboxes whose root file system comes from it, sorted.
    pub sandboxes: Vec<String>,
    /// Names of the snapshots taken from it, sorted.
    pub snapshots: Vec<String>,
}

impl ImageUsers {
    /// Whether nothing needs the image.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.snapshots.is_empty()
    }
}

impl std::fmt::Display for ImageUsers {
    /// The users in words, such as ``sandboxes `a`, `b` and snapshot `c` ``.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |one: &str, many: &str, names: &[String]| match names {
            [] => None,
            [name] => Some(format!("{one} `{name}`")),
            names => Some(format!("{many} `{}`", names.join("`, `"))),
        };
        let parts =
            [list("sandbox", "sandboxes", &self.sandboxes), list("snapshot", "snapshots", &self.snapshots)];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

/// One image of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// The reference and what it resolves to.
    pub handle: ImageHandle,
    /// What needs it.
    pub users: ImageUsers,
    /// Whether the operator pinned it.
    pub pinned: bool,
    /// Where it came from.
    pub origin: Origin,
}

/// The disk under the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Allocated bytes of the files of the cache.
    pub cache_bytes: u64,
    /// Size in bytes of the file system that holds it.
    pub capacity_bytes: u64,
    /// Bytes of it available to the cache.
    pub available_bytes: u64,
}

/// One unchanging state of a cache.
pub trait CacheSource: Send {
    /// Every image, newest created first; images of the same time in the order of their references.
    ///
    /// # Errors
    /// Where the index cannot be read.
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageState>>;

    /// The image with exactly this reference, with its config and layers.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound), or where the index cannot be read.
    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail>;

    /// Which image needs which files, and their sizes. Images are numbered as [`images`](Self::images) lists them.
    ///
    /// # Errors
    /// Where the index or the file system cannot be read.
    fn costs(&mut self) -> MicrosandboxResult<CostGraph>;

    /// The disk under the cache.
    ///
    /// # Errors
    /// Where the file system does not answer.
    fn disk(&mut self) -> MicrosandboxResult<DiskStatus>;
}
