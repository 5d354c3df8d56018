//! The compression of the layers in an archive.

use crate::records::ImageArchiveFormat;

/// The compression of the layers in an archive. The bytes depend on the layer and the compression alone, and not on the
/// number of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerCompression {
    /// None: the largest archive, in the least time. What is written to a stream then takes no space on the disk.
    None,
    /// Gzip (RFC 1952), which everything reads, on all processors.
    Gzip(GzipLevel),
    /// Zstandard (RFC 8878), which is faster and smaller, on all processors. Docker reads it from version 23 on.
    Zstd(ZstdLevel),
}

impl LayerCompression {
    /// Returns the compression that is usual in a form of archives: none in what `docker save` writes, and gzip in an OCI
    /// image layout.
    pub fn of(format: ImageArchiveFormat) -> Self {
        match format {
            ImageArchiveFormat::Docker => Self::None,
            ImageArchiveFormat::Oci => Self::Gzip(GzipLevel::DEFAULT),
        }
    }
}

/// A level of Zstandard: 1 is the fastest and 19 the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZstdLevel(i32);

impl ZstdLevel {
    /// The usual level, 3.
    pub const DEFAULT: Self = Self(3);

    /// Returns a level from 1 to 19, and `None` for another number.
    pub fn new(level: u32) -> Option<Self> {
        i32::try_from(level).ok().filter(|level| (1..=19).contains(level)).map(Self)
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0.unsigned_abs()
    }
}

impl Default for ZstdLevel {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A level of gzip: 1 is the fastest and 9 the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GzipLevel(u32);

impl GzipLevel {
    /// The usual level, 6.
    pub const DEFAULT: Self = Self(6);

    /// Returns a level from 1 to 9, and `None` for another number.
    pub fn new(level: u32) -> Option<Self> {
        (1..=9).contains(&level).then_some(Self(level))
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for GzipLevel {
    fn default() -> Self {
        Self::DEFAULT
    }
}
