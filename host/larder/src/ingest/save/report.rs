//! What is told while images are saved, and afterwards.
//!
//! The JSON form of the records is stable: keys are the field names in alphabetical order, sizes in bytes.

use serde::{Serialize, Serializer};

use super::ConfigOrigin;
use crate::reference::Digest;

/// Told how far a saving is, from one thread that is not the runtime's.
pub trait SaveProgress: Send + Sync {
    /// A layer is about to be converted. A layer that several images have is converted once.
    fn layer_begun(&self, _layer: &LayerStart<'_>) {}

    /// So many more bytes of its files were read.
    fn layer_read(&self, _bytes: u64) {}

    /// The layer is in the archive.
    fn layer_done(&self, _layer: &SavedLayer) {}

    /// The image with its layers, config and manifest is in the archive.
    fn image_done(&self, _image: &SavedImage) {}
}

/// For whoever does not want to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl SaveProgress for NoProgress {}

/// A layer that is about to be converted.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LayerStart<'a> {
    /// The image, as it stands in the index.
    pub reference: &'a str,
    /// Its position in the image; 0 is the bottom.
    pub position: i32,
    /// How many layers the image has.
    pub layers: usize,
    /// Its diff ID in the index.
    pub diff_id: &'a str,
    /// The size of its EROFS image in bytes: at least what its files have.
    pub size_bytes: u64,
}

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
