//! The records of `larder:image`, as plain Rust types.

use crate::Timestamp;

/// Metadata of one cached image reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHandle {
    /// The reference as it stands in the index, such as `docker.io/library/python:3.12`.
    pub reference: String,
    /// Compressed size of all layers in bytes, when known.
    pub size_bytes: Option<i64>,
    /// Digest of the resolved manifest, such as `sha256:…`.
    pub manifest_digest: Option<String>,
    /// CPU architecture resolved at pull or load.
    pub architecture: Option<String>,
    /// Operating system resolved at pull or load.
    pub os: Option<String>,
    /// Number of layers.
    pub layer_count: u32,
    /// When the reference was last used.
    pub last_used_at: Option<Timestamp>,
    /// When the reference first came into the cache.
    pub created_at: Option<Timestamp>,
}

impl ImageHandle {
    /// When the image was last of use to anyone: its last use, or its creation where it was never used.
    pub fn touched_at(&self) -> Option<Timestamp> {
        self.last_used_at.or(self.created_at)
    }

    /// [`touched_at`](Self::touched_at) in words, such as `last used 12d ago` or `never used and created 3h ago`.
    pub fn touched(&self, now: Timestamp) -> String {
        match (self.last_used_at, self.created_at) {
            (Some(used), _) => format!("last used {}", used.ago(now)),
            (None, Some(created)) => format!("never used and created {}", created.ago(now)),
            (None, None) => String::from("neither a last use nor a creation is on record"),
        }
    }
}

/// Fields of the OCI image config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfigDetail {
    /// Digest of the config blob.
    pub digest: String,
    /// Environment variables as `KEY=value`. Empty where the grant withholds them.
    pub env: Vec<String>,
    /// Default arguments of the entry point.
    pub cmd: Option<Vec<String>>,
    /// The program that the image runs.
    pub entrypoint: Option<Vec<String>>,
    /// Directory in which it runs.
    pub working_dir: Option<String>,
    /// User as whom it runs.
    pub user: Option<String>,
    /// Labels. Empty where the grant withholds them.
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

/// Everything the cache knows about one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDetail {
    /// Its metadata.
    pub handle: ImageHandle,
    /// Its config, where it is on record.
    pub config: Option<ImageConfigDetail>,
    /// Its layers, bottom to top.
    pub layers: Vec<ImageLayerDetail>,
}

/// What a prune removes.
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
    /// Bytes freed on disk, where they could be measured.
    pub bytes_reclaimed: Option<u64>,
}

/// What still needs an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsers {
    /// The image.
    pub reference: String,
    /// Names of the sandboxes whose root filesystem comes from it.
    pub sandboxes: Vec<String>,
    /// Names of the snapshots taken from it.
    pub snapshots: Vec<String>,
}

/// In which order [`select`](crate::Cache::select) gives images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By creation, the newest first.
    #[default]
    CreatedNewestFirst,
    /// By creation, the oldest first.
    CreatedOldestFirst,
    /// By last use, the newest first.
    UsedNewestFirst,
    /// By last use, the oldest first.
    UsedOldestFirst,
    /// By size, the largest first.
    LargestFirst,
    /// By size, the smallest first.
    SmallestFirst,
}

/// Which images to select: those that meet every condition given. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// A reference pattern: `*` within one path segment or tag, `**` across segments.
    pub reference: Option<String>,
    /// Not used at or after this instant.
    pub unused_since: Option<Timestamp>,
    /// Created before this instant.
    pub created_before: Option<Timestamp>,
    /// At least this many bytes.
    pub min_size_bytes: Option<i64>,
    /// True for images that no sandbox and no snapshot uses, false for those that are used.
    pub unused: Option<bool>,
    /// In which order they come.
    pub order: Order,
    /// Only what comes after this reference in that order: the next page.
    pub after: Option<String>,
    /// At most this many. The host may give fewer, and gives at least one while there is one.
    pub limit: Option<u32>,
}

/// Where an image came from, and so whether it can be had again.
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

/// What an image costs and who needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub reference: String,
    /// Sandboxes whose root filesystem comes from it.
    pub sandboxes: u32,
    /// Snapshots taken from it.
    pub snapshots: u32,
    /// Whether the operator pinned it.
    pub pinned: bool,
    /// Where it came from.
    pub origin: Origin,
    /// Bytes on disk that removing this image alone would free.
    pub unique_bytes: u64,
    /// Bytes on disk that it shares with other images.
    pub shared_bytes: u64,
}

/// The disk under the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Bytes the cache takes on disk.
    pub cache_bytes: u64,
    /// Size of the file system that holds it.
    pub capacity_bytes: u64,
    /// Bytes of it available to the cache.
    pub available_bytes: u64,
}

/// How much a line of the operator's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever writes the policy.
    Debug,
    /// For whoever runs it.
    Info,
    /// Something that the operator should look at.
    Warn,
    /// Something that went wrong.
    Error,
}
