//! The records that the image API returns.
//!
//! Their JSON form is stable: the keys are the field names in alphabetical order, times RFC 3339, sizes in bytes.

mod guard;
#[cfg(feature = "policy")]
mod job;
mod spare;

pub use guard::Guard;
#[cfg(feature = "policy")]
pub use job::{
    FileSystemSample, FileSystemStatus, Held, HeldBy, JobCause, JobName, JobOutcome, JobRunRecord,
    JobRunReport, Mode,
};
pub use spare::SpareCause;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};

/// The metadata of one cached image reference.
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
    /// Returns the reference as the index has it, such as `docker.io/library/python:3.12`.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the compressed size of all layers in bytes, if it is known.
    pub fn size_bytes(&self) -> Option<i64> {
        self.size_bytes
    }

    /// Returns the digest of the resolved manifest, such as `sha256:…`.
    pub fn manifest_digest(&self) -> Option<&str> {
        self.manifest_digest.as_deref()
    }

    /// Returns the CPU architecture that the pull or load resolved.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// Returns the operating system that the pull or load resolved.
    pub fn os(&self) -> Option<&str> {
        self.os.as_deref()
    }

    /// Returns the number of layers.
    pub fn layer_count(&self) -> usize {
        self.layer_count
    }

    /// Returns the time when the reference was last used.
    pub fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.last_used_at
    }

    /// Returns the time when the reference was added to the cache.
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        self.created_at
    }
}

/// All information in the index about one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageDetail {
    /// The fields of the image config. Absent if the index has none.
    pub config: Option<ImageConfigDetail>,
    /// The reference and its image.
    pub handle: ImageHandle,
    /// The layers, bottom to top.
    pub layers: Vec<ImageLayerDetail>,
}

/// The fields of the OCI image config (OCI image specification, image configuration).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageConfigDetail {
    /// The default arguments, or the default command if there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// The digest of the config blob.
    pub digest: String,
    /// The command to run.
    pub entrypoint: Option<Vec<String>>,
    /// The environment variables as `KEY=value`.
    pub env: Vec<String>,
    /// The labels, a JSON object.
    pub labels: Option<serde_json::Value>,
    /// The signal that stops the container, such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// The user and group to run as.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
}

/// The metadata of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageLayerDetail {
    /// The digest of the layer blob as the registry served it.
    pub blob_digest: String,
    /// The size of the layer blob in bytes.
    pub compressed_size_bytes: Option<i64>,
    /// The digest of the uncompressed layer.
    pub diff_id: String,
    /// The size of the layer's EROFS image in bytes.
    pub erofs_size_bytes: Option<i64>,
    /// The OCI media type.
    pub media_type: Option<String>,
    /// The position in the image. 0 is the bottom.
    pub position: i32,
}

/// A report of what a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePruneReport {
    /// The number of references removed from the index.
    pub image_refs_removed: u32,
    /// The number of manifests removed from the index.
    pub manifests_removed: u32,
    /// The number of layers removed from the index.
    pub layers_removed: u32,
    /// The number of merged fsmeta images removed from disk, including those that no row owned.
    pub fsmeta_removed: u32,
    /// The number of VMDK descriptors removed from disk, including those that no row owned.
    pub vmdk_removed: u32,
    /// The allocated bytes of the deleted files, with hard links counted once. Absent if no file was deleted.
    pub bytes_reclaimed: Option<u64>,
    /// The number of references, manifests, layers and unowned files that were left because a live operation held them.
    pub skipped_in_use: u32,
}

/// The files of an earlier removal whose process ended before it had deleted them, and that were deleted since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredFiles {
    /// The allocated bytes that were freed.
    pub bytes: u64,
    /// The number of files.
    pub files: u64,
}

impl std::ops::AddAssign for RecoveredFiles {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.files += other.files;
    }
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ImageArchiveFormat {
    /// The format that `docker save` writes and `docker load` reads: a tar file with `manifest.json` and plain layers.
    #[default]
    Docker,
    /// An image layout (OCI image specification, image layout) as a tar file, with gzip layers; and with the
    /// `manifest.json` that `docker load` reads.
    Oci,
}

/// The origin of an image, which determines if the image can be pulled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The image was pulled: the registry may serve it again.
    Registry,
    /// The image was loaded from an archive: removing it may lose it forever.
    Archive,
    /// The origin was not recorded.
    #[default]
    Unknown,
}

/// The users of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageUsers {
    /// The names of the sandboxes whose root file system is this image, sorted.
    pub sandboxes: Vec<String>,
    /// The names of the snapshots taken from it, sorted.
    pub snapshots: Vec<String>,
}

impl ImageUsers {
    /// Returns whether the image has no users.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.snapshots.is_empty()
    }
}

impl std::fmt::Display for ImageUsers {
    /// Writes the users in words, such as ``sandboxes `a`, `b` and snapshot `c` ``.
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

/// The cost of running a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCost {
    /// Wall time in milliseconds, rounded up.
    pub duration_ms: u64,
    /// Fuel, if it was counted.
    pub fuel: Option<u64>,
}

/// The kind of a row that no reference reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnreachedKind {
    /// A manifest that no reference names, and no sandbox or snapshot uses.
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
    /// The name that the policy states.
    pub name: String,
    /// The version that the policy states.
    pub version: String,
    /// The digest of the component.
    pub hash: String,
}

/// Serializes a time as RFC 3339 with as many digits as it needs, and with `+00:00` for UTC as the
/// microsandbox SDK writes it.
fn rfc3339<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_rfc3339()).serialize(serializer)
}
