//! The report of a save.
//!
//! The JSON form of the records is stable: the keys are the field names in alphabetical order, sizes in bytes.

use serde::{Serialize, Serializer};

use super::ConfigOrigin;
use crate::reference::Digest;

/// A report of the saved images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SaveReport {
    /// The length of the archive in bytes.
    pub bytes_written: u64,
    /// The images, in the order of the call.
    pub images: Vec<SavedImage>,
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedImage {
    /// The origin of the config in the archive.
    pub config: ConfigOrigin,
    /// The digest of the config in the archive.
    #[serde(serialize_with = "text")]
    pub config_digest: Digest,
    /// The layers, bottom to top.
    pub layers: Vec<SavedLayer>,
    /// The manifest in the archive. Absent in a Docker archive, which has none.
    pub manifest: Option<SavedManifest>,
    /// The references of the call, in the spelling of the index.
    pub references: Vec<String>,
    /// The names in the archive: the references, normalized, without digests.
    pub tags: Vec<String>,
}

/// The manifest of an image in an OCI archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedManifest {
    /// The digest.
    #[serde(serialize_with = "text")]
    pub digest: Digest,
    /// The length in bytes.
    pub size_bytes: u64,
}

/// A layer in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedLayer {
    /// The digest of the layer as it is stored in the archive.
    #[serde(serialize_with = "text")]
    pub blob_digest: Digest,
    /// The digest of the uncompressed layer in the archive.
    #[serde(serialize_with = "text")]
    pub diff_id: Digest,
    /// The length in the archive, in bytes.
    pub size_bytes: u64,
    /// The number of sockets that were left out, because tar has no form for them.
    pub sockets_left_out: u64,
    /// The diff ID in the index.
    pub source_diff_id: String,
    /// The number of extended attributes that were left out, because their names cannot be in tar: they have a `=` or are
    /// not UTF-8.
    pub xattrs_left_out: u64,
}

fn text<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    digest.as_str().serialize(serializer)
}
