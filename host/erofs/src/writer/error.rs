//! The errors of writing an image.

use std::io;

use super::MAX_SYMLINK;
use crate::path::{EntryPath, PathError};

/// The error for an entry that was not added, or an image that was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed.
    #[error("the image cannot be written")]
    Write(#[source] io::Error),

    /// The data of a file could not be read.
    #[error("the data of `{path}` cannot be read")]
    Data {
        /// The file.
        path: EntryPath,
        /// The reason.
        #[source]
        source: io::Error,
    },

    /// The data of a file ended before its size.
    #[error("the data of `{path}` ends after {found} of {expected} bytes")]
    ShortData {
        /// The file.
        path: EntryPath,
        /// The size of the entry, in bytes.
        expected: u64,
        /// The number of bytes that could be read.
        found: u64,
    },

    /// A component of the path is not a directory. Symbolic links are not followed.
    #[error("`{path}` cannot be made: `{obstacle}` is not a directory")]
    NotADirectory {
        /// The entry.
        path: EntryPath,
        /// The component that is not a directory.
        obstacle: EntryPath,
    },

    /// More than [`MAX_LINKS`](super::MAX_LINKS) symbolic links lead to the directory of the entry: they lead in a circle.
    #[error("`{0}` cannot be made: the links above it lead in a circle")]
    TooManyLinks(EntryPath),

    /// A symbolic link above the entry leads to names that cannot be in an image.
    #[error("`{path}` cannot be made: a link above it leads to a name that cannot be: {source}")]
    Unreachable {
        /// The entry.
        path: EntryPath,
        /// The problem.
        source: PathError,
    },

    /// The entry for the root is not a directory.
    #[error("the root of an image can only be a directory")]
    RootIsADirectory,

    /// The target of a hard link does not exist at that point.
    #[error("`{path}` is a hard link to `{target}`, which is not there")]
    MissingTarget {
        /// The link.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },

    /// The target of a hard link is a directory.
    #[error("`{path}` is a hard link to `{target}`, which is a directory")]
    LinkToDirectory {
        /// The link.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },

    /// The target of a symbolic link is empty, longer than [`MAX_SYMLINK`] bytes, or contains a NUL.
    #[error("`{0}` is a symbolic link whose target is not 1 to {MAX_SYMLINK} bytes without NUL")]
    SymlinkTarget(EntryPath),

    /// There are more blocks than the format can count: 16 TiB.
    #[error("the image is larger than 16 TiB")]
    TooLarge,

    /// An earlier failure left the image in a state that cannot be continued.
    #[error("the image is incomplete because of an earlier failure")]
    Spoilt,
}
