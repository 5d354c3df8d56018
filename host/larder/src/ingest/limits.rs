//! How much an image may ask of this machine.

/// Limits on what is taken in, against archives that are small and unpack to anything.
///
/// ```
/// let mut limits = larder::ingest::IngestLimits::default();
/// limits.layer_bytes = 4 << 30;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestLimits {
    /// Bytes of an archive once it is decompressed: 256 GiB.
    pub archive_bytes: u64,
    /// Entries of an archive: 100,000. Their names are held in memory.
    pub archive_entries: u64,
    /// Images of an archive: 4,096.
    pub images: u64,
    /// Bytes of one manifest, index or config: 8 MiB.
    pub document_bytes: u64,
    /// Bytes of all manifests, indexes and configs that are read for one archive or one pull, each of them counted as
    /// often as another refers to it, and as 1 KiB at least: 64 MiB.
    pub all_documents_bytes: u64,
    /// Bytes of a layer once it is decompressed, holes of sparse files counted: 64 GiB.
    pub layer_bytes: u64,
    /// Entries of a layer, with the directories above them that have none: 1,000,000. Each takes a few hundred bytes of
    /// memory.
    pub layer_entries: u64,
    /// Bytes of all names, link targets and extended attributes of a layer, which are held in memory: 256 MiB.
    pub layer_metadata_bytes: u64,
    /// Layers of an image: 512.
    pub layers: u64,
    /// Entries of all layers of an image together: 4,000,000.
    pub image_entries: u64,
    /// Bytes of all names, link targets and extended attributes of all layers of an image together: 1 GiB.
    pub image_metadata_bytes: u64,
    /// How many times larger a layer may become by being decompressed: 300.
    pub ratio: u64,
    /// Up to so many bytes a layer may become however much larger: 1 GiB. Files of zeros are larger than
    /// [`ratio`](Self::ratio) allows.
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
