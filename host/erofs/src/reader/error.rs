//! Why an image cannot be read.

use std::io;

use crate::format::{FormatError, Nid};
use crate::metadata::FileKind;
use crate::path::{EntryPath, PathError};

/// Why an image, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("the image cannot be read")]
    Io(#[from] io::Error),

    /// The superblock or the device table is not one.
    #[error(transparent)]
    Superblock(FormatError),

    /// An inode, or what belongs to it, is not what it should be.
    #[error("inode {}: {problem}", .nid.0)]
    Inode {
        /// Its number.
        nid: Nid,
        /// What is wrong.
        problem: FormatError,
    },

    /// The image or one of its devices is shorter than its superblock says.
    #[error("the image has {found} of {expected} bytes")]
    Truncated {
        /// What there should be.
        expected: u64,
        /// What there is.
        found: u64,
    },

    /// The image refers to another number of devices than were given.
    #[error("the image refers to {expected} devices, {found} were given")]
    Devices {
        /// How many it refers to.
        expected: u16,
        /// How many were given.
        found: usize,
    },

    /// Something was asked of an inode that only another kind has.
    #[error("inode {} is a {found:?}, not a {expected:?}", .nid.0)]
    Kind {
        /// Its number.
        nid: Nid,
        /// What it should be.
        expected: FileKind,
        /// What it is.
        found: FileKind,
    },

    /// Something in the image has a path that Linux cannot take.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl ReadError {
    pub(crate) fn invalid(nid: Nid, what: &'static str) -> Self {
        Self::Inode { nid, problem: FormatError::Invalid(what) }
    }
}

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be read")]
pub struct WalkError {
    /// The entry that cannot be read.
    pub path: EntryPath,
    /// Why.
    #[source]
    pub source: ReadError,
}
