//! The structures of EROFS in an image. Each is parsed and encoded in one place.
//!
//! Everything is little-endian. A parser takes bytes and returns values or a [`FormatError`]. It reads nothing beyond
//! these bytes and never panics, so each function is safe to call on hostile bytes.
//!
//! An image consists of, in blocks of [`BLOCK_SIZE`] bytes:
//!
//! ```text
//! 0      1024  superblock (128), device slots (128 each) where the image refers to others
//! any          data of regular files, whole blocks
//! any          blocks of directories, long symlinks
//! xattr_start  shared extended attributes
//! meta_start   inodes in slots of 32 bytes, the slot number is the Nid; behind an inode its extended attributes,
//!              then its chunk indexes or the tail of its content
//! ```
//!
//! The format is that of Linux, `fs/erofs/erofs_fs.h`, and of <https://erofs.docs.kernel.org>.

pub(crate) mod device;
pub(crate) mod dirent;
pub(crate) mod inode;
mod superblock;
pub(crate) mod xattr;

pub use device::{DeviceSlot, DeviceTag, DeviceTagError};
pub use dirent::{DirBlock, Dirent};
pub use inode::{ChunkFormat, ChunkIndex, DataLayout, InodeForm, InodeRecord};
pub use superblock::{Superblock, feature_compat, feature_incompat};
pub use xattr::{XattrBody, XattrEntry};

use crate::metadata::FileKind;

/// The size of a block in bytes. Images with another size are refused.
pub const BLOCK_SIZE: usize = 4096;

/// The size of a block as a power of two: 2 to this power is [`BLOCK_SIZE`].
pub const BLOCK_BITS: u8 = 12;

/// The size of an inode slot in bytes.
pub const SLOT_SIZE: u64 = 32;

pub(crate) const BLOCK: u64 = BLOCK_SIZE as u64;

/// The block address that means no block: a hole, or content that is entirely inline.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;

/// The number of a block in a device, which the context determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BlockAddr(pub u32);

impl BlockAddr {
    /// Returns the offset of the block's first byte.
    pub const fn offset(self) -> u64 {
        self.0 as u64 * BLOCK
    }
}

/// The number of an inode: its slot, counted from the beginning of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

/// The error for bytes that are not valid EROFS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes have no EROFS magic.
    #[error("this is no EROFS image")]
    Magic,
    /// The checksum of the superblock does not match its content.
    #[error("the superblock's checksum is {expected:08x}, its content gives {found:08x}")]
    Checksum {
        /// The checksum in the superblock.
        expected: u32,
        /// The checksum of the content.
        found: u32,
    },
    /// The block size is not [`BLOCK_SIZE`].
    #[error("blocks of 2^{0} bytes are not supported, only of {BLOCK_SIZE}")]
    BlockSize(u8),
    /// The image uses features that this crate does not know, compression for instance.
    #[error("the image uses unsupported features: {0:#x}")]
    Features(u32),
    /// A structure ends before its expected end.
    #[error("{0} is cut off")]
    Truncated(&'static str),
    /// A field has an invalid value.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Returns `N` bytes of `bytes` from `at` on. Only for places that are known to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

impl FileKind {
    /// Returns the file type bits of a mode, `S_IFMT`.
    pub(crate) const fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    pub(crate) const fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// Returns the type for a directory entry, `FT_*` in Linux.
    pub(crate) const fn dirent_type(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    pub(crate) const fn from_dirent_type(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }
}
