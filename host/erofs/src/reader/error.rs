//! The errors for images that cannot be read.

use std::io;

use crate::format::{FormatError, Nid};
use crate::metadata::FileKind;
use crate::path::{EntryPath, PathError};

/// The error for an image, or a part of it, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("the image cannot be read")]
    Io(#[from] io::Error),

    /// The superblock or the device table is invalid.
    #[error(transparent)]
    Superblock(FormatError),

    /// An inode, or a part of it, is invalid.
    #[error("inode {}: {problem}", .nid.0)]
    Inode {
        /// The number of the inode.
        nid: Nid,
        /// The problem.
        problem: FormatError,
    },

    /// The image or one of its devices is shorter than its superblock says.
    #[error("the image has {found} of {expected} bytes")]
    Truncated {
        /// The expected length, in bytes.
        expected: u64,
        /// The actual length, in bytes.
        found: u64,
    },

    /// The image refers to a different number of devices than the caller passed.
    #[error("the image refers to {expected} devices, {found} were given")]
    Devices {
        /// The number of devices that the image refers to.
        expected: u16,
        /// The number of devices that the caller passed.
        found: usize,
    },

    /// The operation is for inodes of another kind.
    #[error("inode {} is a {found:?}, not a {expected:?}", .nid.0)]
    Kind {
        /// The number of the inode.
        nid: Nid,
        /// The kind that the operation is for.
        expected: FileKind,
        /// The kind of the inode.
        found: FileKind,
    },

    /// An entry in the image has a path that Linux does not accept.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl ReadError {
    pub(crate) fn invalid(nid: Nid, what: &'static str) -> Self {
        Self::Inode { nid, problem: FormatError::Invalid(what) }
    }
}

/// The error that ended a walk early.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be read")]
pub struct WalkError {
    /// The entry that cannot be read.
    pub path: EntryPath,
    /// The reason.
    #[source]
    pub source: ReadError,
}
