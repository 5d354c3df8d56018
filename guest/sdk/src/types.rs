//! The records of `larder:image`, as plain Rust types.

use crate::{Right, Timestamp};

/// Metadata of one cached image reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHandle {
    /// The reference as the index has it, such as `docker.io/library/python:3.12`.
    pub reference: String,
    /// The repository in normalized form, such as `docker.io/library/python`. Two references are of one repository
    /// exactly if these are equal. The reference itself if that is not well formed.
    pub repository: String,
    /// The tag, such as `3.12`. Absent if the reference has only a digest.
    pub tag: Option<String>,
    /// Compressed size of all layers in bytes, if known.
    pub size_bytes: Option<i64>,
    /// Digest of the resolved manifest, such as `sha256:…`.
    pub manifest_digest: Option<String>,
    /// CPU architecture resolved at pull or load.
    pub architecture: Option<String>,
    /// Operating system resolved at pull or load.
    pub os: Option<String>,
    /// Number of layers.
    pub layer_count: u32,
    /// Last use recorded in the index. A pull or load counts as a use.
    pub last_used_at: Option<Timestamp>,
    /// First arrival of the reference in the cache. A later pull does not change it.
    pub created_at: Option<Timestamp>,
    /// Arrival of the reference or of the manifest that it names now, whichever is later. A tag that is pulled again
    /// with new content is as young as that content.
    pub arrived_at: Option<Timestamp>,
}

impl ImageHandle {
    /// Returns the last instant at which the image was of use to anyone: its last use or its arrival, whichever is
    /// later. Absent if neither is recorded.
    pub fn touched_at(&self) -> Option<Timestamp> {
        self.last_used_at.max(self.arrived_at)
    }

    /// Returns [`touched_at`](Self::touched_at) in words: `last used 12d ago`, `never used and arrived 3h ago`, or
    /// `arrived 3h ago` if the last use was before that.
    pub fn touched(&self, now: Timestamp) -> String {
        match (self.last_used_at, self.arrived_at) {
            (None, None) => String::from("neither a last use nor an arrival is recorded"),
            (None, Some(arrived)) => format!("never used and arrived {}", arrived.ago(now)),
            (Some(used), Some(arrived)) if arrived > used => format!("arrived {}", arrived.ago(now)),
            (Some(used), _) => format!("last used {}", used.ago(now)),
        }
    }
}

/// Fields of the OCI image config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfigDetail {
    /// Digest of the config blob.
    pub digest: String,
    /// Environment variables as `KEY=value`. Absent if the grant withholds them; an empty list means that the image
    /// has none.
    pub env: Option<Vec<String>>,
    /// Default arguments of the entry point.
    pub cmd: Option<Vec<String>>,
    /// The program that the image runs.
    pub entrypoint: Option<Vec<String>>,
    /// Directory in which it runs.
    pub working_dir: Option<String>,
    /// User that it runs as.
    pub user: Option<String>,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Signal that stops it.
    pub stop_signal: Option<String>,
}

/// Metadata of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageLayerDetail {
    /// Digest of the uncompressed layer.
    pub diff_id: String,
    /// Digest of the layer blob as the registry served it.
    pub blob_digest: String,
    /// OCI media type.
    pub media_type: Option<String>,
    /// Size of the layer blob in bytes.
    pub compressed_size_bytes: Option<i64>,
    /// Size of the layer's EROFS image in bytes.
    pub erofs_size_bytes: Option<i64>,
    /// Position in the image; 0 is the bottom.
    pub position: i32,
}

/// One image with its config and layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDetail {
    /// Its metadata.
    pub handle: ImageHandle,
    /// Its config, if it is recorded.
    pub config: Option<ImageConfigDetail>,
    /// Its layers, bottom to top.
    pub layers: Vec<ImageLayerDetail>,
}

/// Counts of what a prune removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePruneReport {
    /// References removed from the index.
    pub image_refs_removed: u32,
    /// Manifests removed from the index.
    pub manifests_removed: u32,
    /// Layer records removed from the index.
    pub layers_removed: u32,
    /// Merged fsmeta EROFS artifacts removed from disk.
    pub fsmeta_removed: u32,
    /// VMDK descriptors removed from disk.
    pub vmdk_removed: u32,
    /// Bytes freed on disk, if they could be measured.
    pub bytes_reclaimed: Option<u64>,
}

/// The sandboxes and snapshots that need an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsers {
    /// The image.
    pub reference: String,
    /// Names of the sandboxes whose root filesystem is this image.
    pub sandboxes: Vec<String>,
    /// Names of the snapshots that were taken of such sandboxes.
    pub snapshots: Vec<String>,
}

/// The order of the images that [`select`](crate::Cache::select) returns. Equal ones follow each other by reference, and
/// what is not known counts as the oldest and the smallest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By first arrival, the newest first.
    #[default]
    CreatedNewestFirst,
    /// By first arrival, the oldest first.
    CreatedOldestFirst,
    /// By arrival, the newest first.
    ArrivedNewestFirst,
    /// By arrival, the oldest first.
    ArrivedOldestFirst,
    /// By last use, the newest first.
    UsedNewestFirst,
    /// By last use, the oldest first.
    UsedOldestFirst,
    /// By size, the largest first.
    LargestFirst,
    /// By size, the smallest first.
    SmallestFirst,
}

/// Conditions that an image has to meet, all of them, and the order and size of a page. The default is every image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// A reference pattern: `*` matches within one path segment or tag, `**` across segments.
    pub reference: Option<String>,
    /// Not used at or after this instant.
    pub unused_since: Option<Timestamp>,
    /// Arrived before this instant.
    pub arrived_before: Option<Timestamp>,
    /// At least this many bytes.
    pub min_size_bytes: Option<i64>,
    /// True selects images that no sandbox and no snapshot uses, false those in use.
    pub unused: Option<bool>,
    /// The order of the images.
    pub order: Order,
    /// Starts behind this reference in that order. It may have been removed since.
    pub after: Option<String>,
    /// At most this many. The host may return fewer, and returns at least one while there is one.
    pub limit: Option<u32>,
}

/// The source of an image, and so the chance to get it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// Pulled: the registry may serve it again.
    Registry,
    /// Loaded from an archive: removing it may lose it for good.
    Archive,
    /// Not recorded.
    #[default]
    Unknown,
}

/// The facts about an image's use, which are cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub reference: String,
    /// Number of sandboxes whose root filesystem is this image.
    pub sandboxes: u32,
    /// Number of snapshots that were taken of such sandboxes.
    pub snapshots: u32,
    /// True if the operator pinned it.
    pub pinned: bool,
    /// Where it came from.
    pub origin: Origin,
    /// The right that [`remove`](crate::Cache::remove) without `force` would lack now. Absent if it would lack none.
    pub lacks: Option<Right>,
}

/// The bytes of an image on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageCost {
    /// The image.
    pub reference: String,
    /// Bytes on disk that removing only this image would free.
    pub unique_bytes: u64,
    /// Bytes on disk that it shares with other images.
    pub shared_bytes: u64,
}

/// The recorded past of an image, as far back as the host has kept it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHistory {
    /// The image.
    pub reference: String,
    /// First record of its manifest.
    pub first_seen_at: Option<Timestamp>,
    /// The last boots of sandboxes from it, newest first: at most 32, at least an hour apart.
    pub boots: Vec<Timestamp>,
    /// Number of recorded boots.
    pub boot_count: u64,
    /// Number of recorded pulls and loads.
    pub arrivals: u32,
    /// Duration of the last pull in milliseconds.
    pub pull_millis: Option<u64>,
    /// Bytes of the last pull over the network.
    pub pull_bytes: Option<u64>,
}

/// The status of the cache's disk when the run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Bytes that the cache takes on disk.
    pub cache_bytes: u64,
    /// Size of its file system.
    pub capacity_bytes: u64,
    /// Bytes of that available to the cache.
    pub available_bytes: u64,
}

/// The rest of the grant's caps after the removals staged so far. A field is absent if the grant has no such cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Number of further removals.
    pub removals: Option<u32>,
    /// Bytes that further removals may free.
    pub bytes: Option<u64>,
}

/// The importance of a line of the operator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author of the policy.
    Debug,
    /// For the operator.
    Info,
    /// Something that the operator should look at.
    Warn,
    /// Something that went wrong.
    Error,
}
