//! A bound on the total metadata of an image's inodes.
//!
//! Extended attributes can be shared, and the format allows the targets of symbolic links to overlap. So some
//! kilobytes of inodes could all refer to the same kilobytes, and take gigabytes in the memory of a reader.

use super::{Inode, ReadError};

/// The factor by which the metadata of all inodes may exceed the bytes of the image that can hold it. Real
/// images share only some labels.
const SHARING: u64 = 16;

/// The number of bytes up to which sharing is always allowed.
const ALWAYS: u64 = 1 << 20;

/// The remaining bytes for extended attributes and targets of symbolic links.
#[derive(Debug)]
pub(crate) struct Room {
    left: u64,
}

impl Room {
    /// Makes the room for the inodes of an image of `length` bytes.
    pub(crate) fn of_image(length: u64) -> Self {
        Self { left: length.saturating_mul(SHARING).max(ALWAYS) }
    }

    /// Subtracts the bytes of an inode from the room that is left.
    pub(crate) fn take(&mut self, inode: &Inode, bytes: usize) -> Result<(), ReadError> {
        let left = self.left.checked_sub(bytes as u64);
        self.left =
            left.ok_or_else(|| ReadError::invalid(inode.nid, "inodes share too much of the image"))?;
        Ok(())
    }
}
