//! What is told when images are saved.
//!
//! The JSON form of the records is stable: keys are the field names in alphabetical order, sizes in bytes.

use serde::{Serialize, Serializer};

use super::ConfigOrigin;
use crate::reference::Digest;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SaveReport {
    /// The length of the archive.
    pub bytes_written: u64,
    /// In the order in which they were asked for.
    pub images: Vec<SavedImage>,
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedImage {
    /// How much of the original config is in the archive.
    pub config: ConfigOrigin,
    /// Digest of the config in the archive.
    #[serde(serialize_with = "text")]
    pub config_digest: Digest,
    /// Bottom to top.
    pub layers: Vec<SavedLayer>,
    /// The manifest in the archive; absent in a Docker archive, which has none.
    pub manifest: Option<SavedManifest>,
    /// The references that were asked for, as they stand in the index.
    pub references: Vec<String>,
    /// What the archive calls it: the references, normalized, without digests.
    pub tags: Vec<String>,
}

/// The manifest of an image in an OCI archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedManifest {
    /// Its digest.
    #[serde(serialize_with = "text")]
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// A layer in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedLayer {
    /// Digest of the layer as it is stored in the archive.
    #[serde(serialize_with = "text")]
    pub blob_digest: Digest,
    /// Digest of the uncompressed layer in the archive.
    #[serde(serialize_with = "text")]
    pub diff_id: Digest,
    /// Its length in the archive.
    pub size_bytes: u64,
    /// Sockets that were left out: tar has no form for them.
    pub sockets_left_out: u64,
    /// Its diff ID in the index.
    pub source_diff_id: String,
}

fn text<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    digest.as_str().serialize(serializer)
}
