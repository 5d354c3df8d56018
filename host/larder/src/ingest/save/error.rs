//! Why images cannot be saved.

use std::path::PathBuf;

use larder_erofs::EntryPath;
use larder_erofs::reader::{ReadError, WalkError};

/// Why images cannot be saved. There is no archive then, or still the old one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The call named no image.
    #[error("there is nothing to save: name at least one image")]
    NoReferences,

    /// The index has a reference and nothing that it resolves to.
    #[error("`{reference}` resolves to nothing in the index: pull it again")]
    NoManifest {
        /// The reference.
        reference: String,
    },

    /// Between the beginning and its turn, the image was removed or its reference came to name another.
    #[error("`{reference}` was removed or replaced in the meantime: save it again")]
    Changed {
        /// The reference.
        reference: String,
    },

    /// A layer's artifact is not there.
    #[error("`{}` is missing, and `{reference}` needs it", .path.display())]
    Missing {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
    },

    /// A layer's artifact is there and is not what it should be.
    #[error("`{}`, which `{reference}` needs, is damaged: {what}", .path.display())]
    Damaged {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },

    /// A layer's artifact cannot be read as an EROFS image.
    #[error("`{}`, which `{reference}` needs, is damaged", .path.display())]
    Unreadable {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },

    /// Something in a layer's artifact cannot be read.
    #[error("`{}`, which `{reference}` needs, is damaged", .path.display())]
    UnreadableEntry {
        /// The image.
        reference: String,
        /// The artifact.
        path: PathBuf,
        /// Where, and what is wrong.
        source: WalkError,
    },

    /// A layer has an entry that a layer of an archive cannot have.
    #[error("`{entry}` in layer {position} of `{reference}` cannot be in an archive: {why}")]
    NotInTar {
        /// The image.
        reference: String,
        /// The layer's position; 0 is the bottom.
        position: i32,
        /// The entry.
        entry: EntryPath,
        /// What stands in its way.
        why: &'static str,
    },
}

impl SaveError {
    /// Whether a file of the cache is missing or damaged, so that a verification has more to say.
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
