//! Limits on the resources that an image may use on this machine.
//!
//! A limit counts what a load or pull makes of its input, and not what the input says of itself:
//!
//! - **The bytes of a layer** are those of its archive after decompression, and the holes of sparse files, which an archive
//!   has no bytes for. `layer-bytes` bounds those of one layer, `call-bytes` those of all layers of a load or pull.
//! - **The ratio** of these bytes to the compressed size of the layer is unlimited for zeros at first, since zeros of
//!   4 KiB and more are holes in the EROFS image and take no disk: files of zeros, swap files, and `lastlog` are real. So
//!   the ratio has two allowances. What layers *write to the disk* beyond `ratio` times their compressed size may be
//!   `ratio-from-bytes` together. What they *have*, zeros and holes among it, may be `ratio-from-zeros` more than that
//!   ratio together: it takes time here, and each copy of the image is as long as that.
//!   The same holds for an archive that is compressed as a whole, and decompressed before anything else.
//! - **Memory** is taken for names: `layer-entries` and `layer-metadata-bytes` bound it for a layer, `image-entries` and
//!   `image-metadata-bytes` for the layers of an image while they are joined, and also for all layers that are converted
//!   at the same time.
//!
//! So a small archive writes 1 GiB at most, however many layers it has, and a large one at most 300 times its size. Each
//! limit stands in the table at the end of this module with its key, its unit and its default.

use std::fmt;
use std::str::FromStr;

/// The unit of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitUnit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

/// The error for text that is not the key of a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a limit: there are {list}", list = all_keys())]
pub struct UnknownLimit(String);

fn all_keys() -> String {
    LimitKey::ALL.map(|key| format!("`{key}`")).join(", ")
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LimitKey {
    type Err = UnknownLimit;

    fn from_str(text: &str) -> Result<Self, UnknownLimit> {
        let found = Self::ALL.into_iter().find(|key| key.as_str() == text);
        found.ok_or_else(|| UnknownLimit(text.chars().take(80).collect()))
    }
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $field:ident $key:ident $name:literal: $default:expr, $unit:ident $what:literal;)+) => {
        /// The limits on loads and pulls, against small archives that unpack to huge ones.
        ///
        /// ```
        /// use larder::ingest::{IngestLimits, LimitKey};
        ///
        /// let mut limits = IngestLimits::default();
        /// limits.layer_bytes = 4 << 30;
        /// limits.set("call-bytes".parse()?, 8 << 30);
        /// assert_eq!(limits.get(LimitKey::CallBytes), 8 << 30);
        /// # Ok::<(), larder::ingest::UnknownLimit>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct IngestLimits {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Default for IngestLimits {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// The name of a limit of [`IngestLimits`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum LimitKey {
            $(#[doc = concat!("The limit [`", stringify!($field), "`](IngestLimits::", stringify!($field), ").")] $key,)+
        }

        impl LimitKey {
            /// All limits.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$key),+];

            /// Returns the key as it is written, such as `layer-bytes`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$key => $name,)+ }
            }

            /// Returns what the limit counts.
            pub const fn unit(self) -> LimitUnit {
                match self { $(Self::$key => LimitUnit::$unit,)+ }
            }

            /// Returns the words behind the number in a message, such as `bytes in a layer`.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$key => $what,)+ }
            }
        }

        impl IngestLimits {
            /// Returns the limit of this key.
            pub const fn get(&self, key: LimitKey) -> u64 {
                match key { $(LimitKey::$key => self.$field,)+ }
            }

            /// Returns the bytes beyond the ratio to so many stored ones.
            pub(crate) const fn beyond_ratio(&self, bytes: u64, stored: u64) -> u64 {
                bytes.saturating_sub(stored.saturating_mul(self.ratio))
            }

            /// Sets the limit of this key.
            pub const fn set(&mut self, key: LimitKey, limit: u64) {
                match key { $(LimitKey::$key => self.$field = limit,)+ }
            }
        }
    };
}

limits! {
    /// The bytes of a compressed archive after decompression, or of one that is not a file: 256 GiB.
    archive_bytes ArchiveBytes "archive-bytes": 256 << 30, Bytes "bytes in an archive that is compressed or not a file";
    /// The entries of an archive: 100,000. Their names are held in memory.
    archive_entries ArchiveEntries "archive-entries": 100_000, Count "entries in an archive";
    /// The images of an archive: 4,096.
    images Images "images": 4096, Count "images in an archive";
    /// The bytes of one manifest, index or config: 8 MiB.
    document_bytes DocumentBytes "document-bytes": 8 << 20, Bytes "bytes in a manifest, index or config";
    /// The bytes of all manifests, indexes and configs that are read for one archive or one pull: 64 MiB. Each document
    /// is counted for each reference to it, and as at least 1 KiB.
    all_documents_bytes AllDocumentsBytes "all-documents-bytes": 64 << 20,
        Bytes "bytes in all manifests, indexes and configs";
    /// The bytes of a layer after decompression, with the holes of sparse files: 64 GiB.
    layer_bytes LayerBytes "layer-bytes": 64 << 30, Bytes "bytes in a layer";
    /// The bytes of all layers of a load or pull after decompression, with the holes of sparse files: 512 GiB.
    call_bytes CallBytes "call-bytes": 512 << 30, Bytes "bytes in all layers";
    /// The entries of a layer, with the directories above them that have no entry: 1,000,000. Each takes a few hundred
    /// bytes of memory.
    layer_entries LayerEntries "layer-entries": 1_000_000, Count "entries in a layer";
    /// The bytes of all names, link targets and extended attributes of a layer, which are held in memory: 256 MiB.
    layer_metadata_bytes LayerMetadataBytes "layer-metadata-bytes": 256 << 20,
        Bytes "bytes of names and attributes in a layer";
    /// The layers of an image: 512.
    layers Layers "layers": 512, Count "layers";
    /// The entries of all layers of an image together: 4,000,000. Also those of all layers that are converted at once.
    image_entries ImageEntries "image-entries": 4_000_000, Count "entries in all layers";
    /// The bytes of all names, link targets and extended attributes of all layers of an image together: 1 GiB. Also
    /// those of all layers that are converted at once.
    image_metadata_bytes ImageMetadataBytes "image-metadata-bytes": 1 << 30,
        Bytes "bytes of names and attributes in all layers";
    /// The ratio of the bytes of a layer to its compressed size: 300. More is taken from the two limits that follow.
    ratio Ratio "ratio": 300, Count "times its compressed size";
    /// The bytes that all layers of a load or pull write to the disk beyond [`ratio`](Self::ratio) times their
    /// compressed size: 1 GiB.
    ratio_from_bytes RatioFromBytes "ratio-from-bytes": 1 << 30, Bytes "bytes that layers write beyond the ratio to their compressed size";
    /// The bytes that all layers of a load or pull have, zeros and holes among them, beyond [`ratio`](Self::ratio) times
    /// their compressed size: 16 GiB.
    ratio_from_zeros RatioFromZeros "ratio-from-zeros": 16 << 30,
        Bytes "bytes that layers have, zeros among them, beyond the ratio to their compressed size";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each key is read back as itself, names its own limit, and has the name of its field.
    #[test]
    fn keys() {
        for (index, key) in LimitKey::ALL.into_iter().enumerate() {
            assert_eq!(key.as_str().parse(), Ok(key));
            let mut limits = IngestLimits::default();
            limits.set(key, 7_000 + index as u64);
            assert_eq!(limits.get(key), 7_000 + index as u64);
            let field = format!("{}: {}", key.as_str().replace('-', "_"), 7_000 + index);
            assert!(format!("{limits:?}").contains(&field), "{field}");
        }
        let error = "layer".parse::<LimitKey>().expect_err("no key").to_string();
        assert!(error.starts_with("`layer` is not a limit: there are `archive-bytes`, "), "{error}");
    }
}
