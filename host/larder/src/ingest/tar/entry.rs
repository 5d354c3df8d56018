//! The entries of an archive.

use super::sparse::Region;

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TarKind {
    File,
    Directory,
    /// A hard link to this name.
    HardLink(Vec<u8>),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    CharDevice(i64, i64),
    BlockDevice(i64, i64),
    Fifo,
    /// A type that is no part of an image.
    Other(u8),
}

/// An entry without its data.
#[derive(Debug, Clone)]
pub(crate) struct TarEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: TarKind,
    pub(crate) mode: u32,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    /// The modification time: seconds since 1970, and nanoseconds after them.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The number of bytes of data in the archive.
    pub(crate) stored: u64,
    /// For a file with holes: its size, and the positions of its data.
    pub(crate) sparse: Option<(u64, Vec<Region>)>,
}

impl TarEntry {
    /// Returns the number of bytes that the entry takes in memory beside its path and its data.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let target = match &self.kind {
            TarKind::Symlink(target) | TarKind::HardLink(target) => target.len(),
            _ => 0,
        };
        target + self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// Returns the number of bytes of the file that are not in the archive.
    pub(crate) fn hole_bytes(&self) -> u64 {
        self.sparse.as_ref().map_or(0, |(size, regions)| {
            let data = regions.iter().fold(0_u64, |sum, region| sum.saturating_add(region.length));
            size.saturating_sub(data)
        })
    }
}
