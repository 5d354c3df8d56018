//! The errors of the library. Each variant is a case that a caller can handle differently.
//!
//! [`MicrosandboxError`] keeps the names of the microsandbox SDK if it has one. A source error is printed once: a
//! variant either shows it in its message or returns it as [`source`](std::error::Error::source), not both.

pub(crate) mod slip;

use std::path::{Path, PathBuf};

use crate::home::HomeError;
use crate::reference::{DigestError, ReferenceError};

/// The result of every fallible call.
pub type MicrosandboxResult<T> = Result<T, MicrosandboxError>;

/// The error of a failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MicrosandboxError {
    /// The cache has no image with this reference, neither in its exact spelling nor in its normalized form.
    #[error("image not found: {0}")]
    ImageNotFound(String),

    /// The image is in use by the sandboxes, snapshots, pin or live operation that the text names.
    #[error("image in use: {0}")]
    ImageInUse(String),

    /// The text is not an image reference.
    #[error(transparent)]
    InvalidReference(#[from] ReferenceError),

    /// The text is not a content digest.
    #[error(transparent)]
    InvalidDigest(#[from] DigestError),

    /// The settings contradict each other or are incomplete. The text names the setting and a valid value.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),

    /// The selected backend does not support the call.
    #[error("{} is not supported by this backend: {}", .op.api_path(), .reason.hint())]
    Unsupported {
        /// The call.
        op: Operation,
        /// The reason.
        reason: UnsupportedReason,
    },

    /// The home cannot be used as requested.
    #[error(transparent)]
    Home(#[from] HomeError),

    /// A file or directory of the cache could not be used.
    #[error("could not {action} `{}`", .path.display())]
    Io {
        /// The action that failed, such as `read`.
        action: &'static str,
        /// The path of the file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// The index could not be read or changed.
    #[error("the index failed while it was to {action}")]
    Database {
        /// The action that failed, such as `list images`.
        action: &'static str,
        /// The error of SQLite.
        source: rusqlite::Error,
    },

    /// A plan document cannot be applied.
    #[error("the plan cannot be used: {0}")]
    InvalidPlan(String),

    /// A plan was made for another home.
    #[error("the plan is for another home, that at `{planned}`, and not for `{home}`")]
    PlanForAnotherHome {
        /// The path of the home that the plan was made for.
        planned: String,
        /// The path of the home that the plan was to be applied to.
        home: String,
    },

    /// An error ended a removal before it was complete.
    #[error("the removal ended early, with {} of its images removed", report.removed.len())]
    Incomplete {
        /// The images that were removed before the error. They stay removed.
        report: Box<crate::plan::PlanReport>,
        /// The error that ended the removal.
        source: Box<MicrosandboxError>,
    },

    /// An image could not be loaded or pulled. Boxed because the error is large.
    #[error(transparent)]
    Ingest(Box<crate::ingest::IngestError>),
    /// Images could not be saved.
    #[error(transparent)]
    Save(#[from] crate::ingest::SaveError),

    /// The policy could not be loaded, or its run ended without a plan.
    #[error(transparent)]
    Policy(#[from] crate::policy::PolicyError),

    /// The caller stopped a removal before it was complete.
    #[error("interrupted")]
    Stopped,

    /// A task of this library ended without a result: a bug, or a runtime that is shutting down.
    #[error("the operation was cut short: {0}")]
    Interrupted(String),
}

impl From<crate::ingest::IngestError> for MicrosandboxError {
    fn from(error: crate::ingest::IngestError) -> Self {
        Self::Ingest(Box::new(error))
    }
}

impl MicrosandboxError {
    /// Returns [`Unsupported`](Self::Unsupported) for a call that needs a local backend.
    pub(crate) fn local_only(op: Operation) -> Self {
        Self::Unsupported { op, reason: UnsupportedReason::LocalOnly }
    }

    /// Returns a function for `map_err` that turns an I/O error at `path` into [`Io`](Self::Io).
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns a function for `map_err` that turns an SQLite error into [`Database`](Self::Database).
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
    /// Returns the call as it is written in Rust, such as `Image::get`.
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

/// The reason why a backend does not support a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsupportedReason {
    /// Only a local backend has an image cache.
    LocalOnly,
}

impl UnsupportedReason {
    /// Returns the alternative for the user, as the end of a sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::LocalOnly => "use a local backend",
        }
    }
}
