//! One state of the cache, as a decision sees it: the images, who needs them, and what they cost.
//!
//! A [`CacheSnapshot`] answers from one unchanging state: an open read transaction on a home, or a scenario in
//! memory. Whoever decides (a policy run, a plain prune, `df`) works on it and never on the live index, so that
//! what it is shown cannot change under it; what is decided is checked against the live index when it is applied.

mod costs;
mod memory;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use costs::{
    CostGraph, CostGraphBuilder, FileCost, Freed, GroupBytes, Grouped, HardLinks, LayerId, ManifestId,
    Removal, Sharing,
};
pub use memory::{MemoryCache, MemoryImage};

pub use crate::records::{ImageUsers, Origin};

use crate::error::MicrosandboxResult;
use crate::home::HomeIdentity;
use crate::records::{ImageDetail, ImageHandle};

/// An image of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The reference and what it resolves to.
    pub handle: ImageHandle,
    /// What needs it.
    pub users: ImageUsers,
    /// Whether the operator pinned it.
    pub pinned: bool,
    /// Where it came from.
    pub origin: Origin,
    /// When it came in: the latest of its reference's first arrival, that of the manifest that it names now, and what
    /// Larder recorded of it. A tag that is pulled again with another manifest is as young as that is.
    pub arrived_at: Option<DateTime<Utc>>,
}

/// The recorded past of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageHistory {
    /// When its manifest was first recorded.
    pub first_seen_at: Option<DateTime<Utc>>,
    /// The last boots of sandboxes from it, newest first.
    pub boots: Vec<DateTime<Utc>>,
    /// Number of recorded boots.
    pub boot_count: u64,
    /// Number of recorded pulls and loads.
    pub arrivals: u32,
    /// The last pull, where it was measured.
    pub last_pull: Option<Pull>,
}

/// What getting an image from a registry took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// How long it took.
    pub duration: Duration,
    /// Bytes that came over the network.
    pub bytes: u64,
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

/// A state of a cache that does not change.
///
/// Every method may block: that of a home asks SQLite and the file system. Asynchronous code calls them, and drops the
/// snapshot, on a thread that may block, such as one of `tokio::task::spawn_blocking`.
pub trait CacheSnapshot: Send {
    /// Every image, newest created first; images of the same time in the order of their references.
    ///
    /// # Errors
    /// Where the index cannot be read.
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>>;

    /// The image with exactly this reference, with its config and layers.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound), or where the index cannot be read.
    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail>;

    /// Which image needs which files, and their sizes. Images are numbered as [`images`](Self::images) lists them.
    ///
    /// That of a home looks at every file that the index names.
    ///
    /// # Errors
    /// Where the index or the file system cannot be read.
    fn costs(&mut self) -> MicrosandboxResult<CostGraph>;

    /// The recorded past of every image, numbered as [`images`](Self::images) lists them. Nothing is recorded of an image
    /// beyond the end of the list.
    ///
    /// # Errors
    /// Where the index cannot be read.
    fn history(&mut self) -> MicrosandboxResult<Vec<ImageHistory>> {
        Ok(Vec::new())
    }

    /// The disk under the cache, as it is now and not as it was when the snapshot was taken.
    ///
    /// That of a home looks at every file of the cache.
    ///
    /// # Errors
    /// Where the file system does not answer.
    fn disk(&mut self) -> MicrosandboxResult<DiskStatus>;

    /// Returns the home that a plan made of it is for. A cache in memory has none.
    ///
    /// # Errors
    /// Fails if the index cannot be read, or if the cache of the home is not there.
    fn home(&mut self) -> MicrosandboxResult<Option<HomeIdentity>> {
        Ok(None)
    }
}
