//! How making and building a policy can fail.

use std::io;
use std::path::{Path, PathBuf};

use crate::Language;

/// What went wrong, to what, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KitError {
    /// Not a name for a policy.
    #[error(
        "`{text}` is not a name for a policy: expected lower-case letters, digits and `-`, beginning with a letter, \
         at most 64 characters"
    )]
    InvalidName {
        /// What was given.
        text: String,
    },
    /// Not a language that policies are built from.
    #[error(
        "`{text}` is not a language that policies are built from: expected `rust`, `c`, `javascript`, `python` or `go`"
    )]
    UnknownLanguage {
        /// What was given.
        text: String,
    },
    /// A new policy does not go where something else is.
    #[error("`{}` is not empty: name a directory that does not exist yet", directory.display())]
    NotEmpty {
        /// Where it was to go.
        directory: PathBuf,
    },
    /// Not the directory of a policy.
    #[error("`{}` has no `policy.toml`, so it is not the directory of a policy: `larder policy new` makes one", directory.display())]
    NoManifest {
        /// The directory.
        directory: PathBuf,
    },
    /// A `policy.toml` that says something else than name and language.
    #[error("`{}`: {message}", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A file is missing without which the language cannot be built.
    #[error("`{}` has no `{file}`, which a policy in {language} is built from", directory.display())]
    MissingSource {
        /// The directory of the policy.
        directory: PathBuf,
        /// What is missing.
        file: &'static str,
        /// The policy's language.
        language: Language,
    },
    /// A program is missing that the kit does not install itself.
    #[error("`{program}` is missing, without which {purpose}: {remedy}")]
    MissingProgram {
        /// The program.
        program: String,
        /// What it is for, as the end of a sentence.
        purpose: &'static str,
        /// What to install.
        remedy: &'static str,
    },
    /// A program failed.
    #[error("`{command}` failed: {status}\n{output}")]
    Command {
        /// The command as one would type it.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// The contract in `wit/` cannot be read.
    #[error("`{}` is not the contract of policies: {message}", path.display())]
    BadContract {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// What was built is not a policy, or one that no host would run.
    #[error("what was built is not a policy: {message}")]
    NotAPolicy {
        /// Why not.
        message: String,
    },
    /// A file could not be read or written.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl KitError {
    /// For `map_err`: what was tried, on what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn not_a_policy(error: impl std::fmt::Display) -> Self {
        Self::NotAPolicy { message: error.to_string() }
    }
}
