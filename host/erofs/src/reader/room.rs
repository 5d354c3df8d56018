//! A bound on what the inodes of an image have together.
//!
//! Extended attributes can be shared, and nothing keeps the targets of symbolic links from lying upon each other. So some
//! kilobytes of inodes could all refer to the same kilobytes, and be gigabytes to whoever holds them in memory.

use super::{Inode, ReadError};

/// How many times what an image has room for its inodes may have of it together. Those that share do it to save
/// some labels.
const SHARING: u64 = 16;

/// What is shared is not worth counting up to this many bytes.
const ALWAYS: u64 = 1 << 20;

/// Room for extended attributes and targets of symbolic links.
#[derive(Debug)]
pub(crate) struct Room {
    left: u64,
}

impl Room {
    /// What the inodes of an image of `length` bytes may have.
    pub(crate) fn of_image(length: u64) -> Self {
        Self { left: length.saturating_mul(SHARING).max(ALWAYS) }
    }

    /// Takes the room for so many bytes of an inode.
    pub(crate) fn take(&mut self, inode: &Inode, bytes: usize) -> Result<(), ReadError> {
        let left = self.left.checked_sub(bytes as u64);
        self.left =
            left.ok_or_else(|| ReadError::invalid(inode.nid, "inodes share too much of the image"))?;
        Ok(())
    }
}
