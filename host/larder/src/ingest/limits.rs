//! Limits on the resources that an image may use on this machine.

/// The limits on loads and pulls, against small archives that unpack to huge ones.
///
/// ```
/// let mut limits = larder::ingest::IngestLimits::default();
/// limits.layer_bytes = 4 << 30;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestLimits {
    /// The bytes of an archive after decompression: 256 GiB.
    pub archive_bytes: u64,
    /// The entries of an archive: 100,000. Their names are held in memory.
    pub archive_entries: u64,
    /// The images of an archive: 4,096.
    pub images: u64,
    /// The bytes of one manifest, index or config: 8 MiB.
    pub document_bytes: u64,
    /// The bytes of all manifests, indexes and configs that are read for one archive or one pull: 64 MiB. Each document
    /// is counted for each reference to it, and as at least 1 KiB.
    pub all_documents_bytes: u64,
    /// The bytes of a layer after decompression, with the holes of sparse files: 64 GiB.
    pub layer_bytes: u64,
    /// The entries of a layer, with the directories above them that have no entry: 1,000,000. Each takes a few hundred
    /// bytes of memory.
    pub layer_entries: u64,
    /// The bytes of all names, link targets and extended attributes of a layer, which are held in memory: 256 MiB.
    pub layer_metadata_bytes: u64,
    /// The layers of an image: 512.
    pub layers: u64,
    /// The entries of all layers of an image together: 4,000,000.
    pub image_entries: u64,
    /// The bytes of all names, link targets and extended attributes of all layers of an image together: 1 GiB.
    pub image_metadata_bytes: u64,
    /// The maximum ratio of the decompressed to the compressed size of a layer: 300.
    pub ratio: u64,
    /// The decompressed size of a layer up to which any ratio is allowed: 1 GiB. Files of zeros exceed
    /// [`ratio`](Self::ratio).
    pub ratio_from_bytes: u64,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            archive_bytes: 256 << 30,
            archive_entries: 100_000,
            images: 4096,
            document_bytes: 8 << 20,
            all_documents_bytes: 64 << 20,
            layer_bytes: 64 << 30,
            layer_entries: 1_000_000,
            layer_metadata_bytes: 256 << 20,
            layers: 512,
            image_entries: 4_000_000,
            image_metadata_bytes: 1 << 30,
            ratio: 300,
            ratio_from_bytes: 1 << 30,
        }
    }
}
