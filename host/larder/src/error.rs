//! What can go wrong, in terms of what a caller can do about it.
//!
//! [`MicrosandboxError`] keeps the names of the microsandbox SDK where that has one. A source error is printed
//! once: a variant either shows it in its message or gives it as [`source`](std::error::Error::source), not both.

pub(crate) mod slip;

use std::path::{Path, PathBuf};

use crate::home::HomeError;
use crate::reference::{DigestError, ReferenceError};

/// The result of every fallible call.
pub type MicrosandboxResult<T> = Result<T, MicrosandboxError>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MicrosandboxError {
    /// The cache holds no image under this reference, neither as it stands nor normalized.
    #[error("image not found: {0}")]
    ImageNotFound(String),

    /// The image is needed: by the sandboxes, snapshots, pin or live operation that the text names.
    #[error("image in use: {0}")]
    ImageInUse(String),

    /// The text is not an image reference.
    #[error(transparent)]
    InvalidReference(#[from] ReferenceError),

    /// The text is not a content digest.
    #[error(transparent)]
    InvalidDigest(#[from] DigestError),

    /// The settings contradict each other or lack something; the text says which and what to set.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),

    /// The selected backend cannot do this.
    #[error("{} is not supported by this backend: {}", .op.api_path(), .reason.hint())]
    Unsupported {
        /// The call.
        op: Operation,
        /// What stands in its way.
        reason: UnsupportedReason,
    },

    /// The home cannot be used as asked.
    #[error(transparent)]
    Home(#[from] HomeError),

    /// A file or directory of the cache could not be used.
    #[error("could not {action} `{}`", .path.display())]
    Io {
        /// What was attempted, such as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// The index could not be read or changed.
    #[error("the index failed while it was to {action}")]
    Database {
        /// What was attempted, such as `list images`.
        action: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },

    /// A plan document cannot be applied.
    #[error("the plan cannot be used: {0}")]
    InvalidPlan(String),

    /// A plan was made for another home.
    #[error("the plan is for another home, that at `{planned}`, and not for `{home}`")]
    PlanForAnotherHome {
        /// Where that home was.
        planned: String,
        /// The home that it was to be applied to.
        home: String,
    },

    /// Something ended a removal before it was complete.
    #[error("the removal ended early, with {} of its images removed", report.removed.len())]
    Incomplete {
        /// What was removed until then. It stays removed.
        report: Box<crate::plan::PlanReport>,
        /// What ended it.
        source: Box<MicrosandboxError>,
    },

    /// An image could not be taken in. Boxed, since it says much.
    #[error(transparent)]
    Ingest(Box<crate::ingest::IngestError>),
    /// Images could not be saved.
    #[error(transparent)]
    Save(#[from] crate::ingest::SaveError),

    /// The policy could not be loaded, or its run ended without a plan.
    #[error(transparent)]
    Policy(#[from] crate::policy::PolicyError),

    /// A task of this library ended without an answer: a bug, or a runtime that is shutting down.
    #[error("the operation was cut short: {0}")]
    Interrupted(String),
}

impl From<crate::ingest::IngestError> for MicrosandboxError {
    fn from(error: crate::ingest::IngestError) -> Self {
        Self::Ingest(Box::new(error))
    }
}

impl MicrosandboxError {
    /// [`Unsupported`](Self::Unsupported) for something that only a local backend can do.
    pub(crate) fn local_only(op: Operation) -> Self {
        Self::Unsupported { op, reason: UnsupportedReason::LocalOnly }
    }

    /// Turns an I/O error at `path` into [`Io`](Self::Io), for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Turns an SQLite error into [`Database`](Self::Database), for `map_err`.
    pub(crate) fn db(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}

/// A call of the image API, as [`MicrosandboxError::Unsupported`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `Image::get`.
    ImageGet,
    /// `Image::list`.
    ImageList,
    /// `Image::inspect`.
    ImageInspect,
    /// `Image::remove`.
    ImageRemove,
    /// `Image::prune`.
    ImagePrune,
    /// `Image::load`.
    ImageLoad,
    /// `Image::pull`.
    ImagePull,
    /// `Image::save`.
    ImageSave,
}

impl Operation {
    /// The call as it is written in Rust, such as `Image::get`.
    pub fn api_path(self) -> &'static str {
        match self {
            Self::ImageGet => "Image::get",
            Self::ImageList => "Image::list",
            Self::ImageInspect => "Image::inspect",
            Self::ImageRemove => "Image::remove",
            Self::ImagePrune => "Image::prune",
            Self::ImageLoad => "Image::load",
            Self::ImagePull => "Image::pull",
            Self::ImageSave => "Image::save",
        }
    }
}

/// Why a backend cannot do something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsupportedReason {
    /// Only a local backend has an image cache.
    LocalOnly,
}

impl UnsupportedReason {
    /// What to do instead, as the end of a sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::LocalOnly => "use a local backend",
        }
    }
}
