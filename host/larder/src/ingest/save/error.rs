//! The errors of saving images.

use std::path::PathBuf;

use larder_erofs::EntryPath;
use larder_erofs::reader::{ReadError, WalkError};

/// The error for images that cannot be saved. There is then no archive, or still the old one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The call named no image.
    #[error("there is nothing to save: name at least one image")]
    NoReferences,

    /// The index has the reference, but no manifest for it.
    #[error("`{reference}` resolves to nothing in the index: pull it again")]
    NoManifest {
        /// The reference.
        reference: String,
    },

    /// After the save began, the image was removed or its reference changed to another image.
    #[error("`{reference}` was removed or replaced in the meantime: save it again")]
    Changed {
        /// The reference.
        reference: String,
    },

    /// A layer's artifact does not exist.
    #[error("`{}` is missing, and `{reference}` needs it", .path.display())]
    Missing {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
    },

    /// A layer's artifact is invalid.
    #[error("`{}`, which `{reference}` needs, is damaged: {what}", .path.display())]
    Damaged {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// The problem.
        what: String,
    },

    /// A layer's artifact cannot be read as an EROFS image.
    #[error("`{}`, which `{reference}` needs, is damaged", .path.display())]
    Unreadable {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// The problem.
        source: ReadError,
    },

    /// An entry in a layer's artifact cannot be read.
    #[error("`{}`, which `{reference}` needs, is damaged", .path.display())]
    UnreadableEntry {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// The path of the entry, and the problem.
        source: WalkError,
    },

    /// A layer has an entry that a layer of an archive cannot have.
    #[error("`{entry}` in layer {position} of `{reference}` cannot be in an archive: {why}")]
    NotInTar {
        /// The image.
        reference: String,
        /// The layer's position. 0 is the bottom.
        position: i32,
        /// The entry.
        entry: EntryPath,
        /// The reason.
        why: &'static str,
    },
}

impl SaveError {
    /// Returns whether a file of the cache is missing or damaged, so that a verification finds more details.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Damaged { .. }
                | Self::Unreadable { .. }
                | Self::UnreadableEntry { .. }
        )
    }
}
