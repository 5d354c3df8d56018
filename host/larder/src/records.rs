//! The records that the image API returns.
//!
//! Their JSON form is stable: keys are the field names in alphabetical order, times RFC 3339, sizes in bytes.

mod guard;

pub use guard::Guard;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};

/// Metadata of one cached image reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageHandle {
    pub(crate) architecture: Option<String>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) created_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    pub(crate) layer_count: usize,
    pub(crate) manifest_digest: Option<String>,
    pub(crate) os: Option<String>,
    pub(crate) reference: String,
    pub(crate) size_bytes: Option<i64>,
}

impl ImageHandle {
    /// The reference as it stands in the index, such as `docker.io/library/python:3.12`.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Compressed size of all layers in bytes, when known.
    pub fn size_bytes(&self) -> Option<i64> {
        self.size_bytes
    }

    /// Digest of the resolved manifest, such as `sha256:…`.
    pub fn manifest_digest(&self) -> Option<&str> {
        self.manifest_digest.as_deref()
    }

    /// CPU architecture resolved at pull or load.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// Operating system resolved at pull or load.
    pub fn os(&self) -> Option<&str> {
        self.os.as_deref()
    }

    /// Number of layers.
    pub fn layer_count(&self) -> usize {
        self.layer_count
    }

    /// When the reference was last used.
    pub fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.last_used_at
    }

    /// When the reference first came into the cache.
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        self.created_at
    }
}

/// Everything that the index knows about one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageDetail {
    /// Fields of the image config; absent where the index has none.
    pub config: Option<ImageConfigDetail>,
    /// The reference and what it resolves to.
    pub handle: ImageHandle,
    /// Bottom to top.
    pub layers: Vec<ImageLayerDetail>,
}

/// Fields of the OCI image config (OCI image specification, image configuration).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageConfigDetail {
    /// Default arguments, or the default command where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Digest of the config blob.
    pub digest: String,
    /// The command to run.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables as `KEY=value`.
    pub env: Vec<String>,
    /// Labels, a JSON object.
    pub labels: Option<serde_json::Value>,
    /// The signal that asks the container to stop, such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// User and group to run as.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
}

/// Metadata of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageLayerDetail {
    /// Digest of the layer blob as the registry served it.
    pub blob_digest: String,
    /// Size of the layer blob in bytes.
    pub compressed_size_bytes: Option<i64>,
    /// Digest of the uncompressed layer.
    pub diff_id: String,
    /// Size of the layer's EROFS image in bytes.
    pub erofs_size_bytes: Option<i64>,
    /// OCI media type.
    pub media_type: Option<String>,
    /// Position in the image; 0 is the bottom.
    pub position: i32,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePruneReport {
    /// References removed from the index.
    pub image_refs_removed: u32,
    /// Manifests removed from the index.
    pub manifests_removed: u32,
    /// Layers removed from the index.
    pub layers_removed: u32,
    /// Merged fsmeta images removed from disk, those that nothing owned among them.
    pub fsmeta_removed: u32,
    /// VMDK descriptors removed from disk, those that nothing owned among them.
    pub vmdk_removed: u32,
    /// Allocated bytes of the files that are gone, hard links counted once; absent where no file went.
    pub bytes_reclaimed: Option<u64>,
    /// References, manifests, layers and files that nothing owns, left because a live operation held them.
    pub skipped_in_use: u32,
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ImageArchiveFormat {
    /// What `docker save` writes and `docker load` reads: a tar file with `manifest.json` and plain layers.
    #[default]
    Docker,
    /// An image layout (OCI image specification, image layout) as a tar file, with gzip layers.
    Oci,
}

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

/// What running a policy took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCost {
    /// Wall time in milliseconds, rounded up.
    pub duration_ms: u64,
    /// Fuel, where it was counted.
    pub fuel: Option<u64>,
}

/// A row that no reference reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnreachedKind {
    /// A manifest that no reference names and nothing uses.
    Manifest,
    /// A layer that no manifest has.
    Layer,
}

/// What made a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// A policy. Its grant, guards, users and pins stand in the way of what it removes.
    Policy,
    /// A prune without a policy. The guard of the home, users and pins stand in its way.
    Prune,
    /// A removal by name: the operator's own word, which stands above guards and, where it is forced, above users and pins.
    Removal,
    /// A repair: files that nothing owns.
    Repair,
}

impl std::fmt::Display for Maker {
    /// The word that documents have for it, such as `policy`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// The policy that made a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanPolicy {
    /// Its name, as it says itself.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// Digest of the component.
    pub hash: String,
}

/// A time as RFC 3339 with as many digits as it needs, and `+00:00` for UTC as the microsandbox SDK writes it.
fn rfc3339<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_rfc3339()).serialize(serializer)
}
