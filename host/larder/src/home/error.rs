//! What can be wrong with a home.

use std::io;
use std::path::{Path, PathBuf};

/// A home that cannot be used as asked: which, and why.
#[derive(Debug, thiserror::Error)]
#[error("home `{}` {problem}", .path.display())]
pub struct HomeError {
    /// The home.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: HomeProblem,
}

/// What is wrong with a home. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeProblem {
    /// There is nothing at that path.
    #[error("does not exist: check `--home` or `MSB_HOME`")]
    Missing,
    /// There is something else.
    #[error("is not a directory")]
    NotADirectory,
    /// It is a directory without an index.
    #[error("is not a microsandbox home: it has no `db/msb.db`")]
    NoIndex,
    /// It cannot be opened.
    #[error("cannot be opened: {0}")]
    Unreadable(io::Error),
    /// It can be read and not changed.
    #[error("is read-only: listing and dry runs work, changes do not")]
    ReadOnly,
    /// The file system that holds it has no space left.
    #[error(
        "is on a full disk: a change needs {needed} bytes on the file system at `{}`, and there is nothing left to give up for it; make that room and try again",
        .place.display()
    )]
    Full {
        /// What a change needs, in bytes, about.
        needed: u64,
        /// Where the file system is mounted.
        place: PathBuf,
    },
    /// Another program kept the index to itself for too long.
    #[error("is busy: another program has been changing its index for five seconds; try again")]
    Locked,
    /// A file belongs to somebody else, or may be reached by another name.
    #[error("cannot be changed: `{}` {why}", .file.display())]
    NotOurs {
        /// The file.
        file: PathBuf,
        /// What is unexpected about it.
        why: &'static str,
    },
    /// The index is damaged.
    #[error("has a damaged index: {0}; restore `db/msb.db` from a backup, or move it away to begin anew")]
    Corrupt(String),
    /// The index lacks a table or column that reading needs.
    #[error("has an index that this version cannot read: {0}")]
    UnknownSchema(String),
    /// A microsandbox newer than this library has changed the index.
    #[error(
        "was upgraded by a newer microsandbox (`{0}`): reading works where it can; to change it, upgrade larder"
    )]
    Newer(String),
    /// A microsandbox older than 0.7.13 made the index, and none has upgraded it.
    #[error(
        "was made by an older microsandbox ({found} of {known} migrations): reading works; to change it, run `msb image ls` with microsandbox 0.7.13 once, which upgrades it"
    )]
    Older {
        /// Migrations that the home has.
        found: usize,
        /// Migrations of microsandbox 0.7.13.
        known: usize,
    },
    /// The history of the index lacks a step.
    #[error("has an index whose history lacks `{0}`: restore `db/msb.db` from a backup")]
    HistoryGap(String),
    /// There are tables, and no record of how they came about.
    #[error("has an index without migration history: it was not made by microsandbox, or was damaged")]
    NoHistory,
    /// A downgrade of microsandbox was begun and not finished.
    #[error("is in the middle of a microsandbox downgrade (`{}`): finish it with `msb` first", .0.display())]
    Downgrading(PathBuf),
    /// An installation of microsandbox is under way.
    #[error("is being installed by process {0}: try again when that has ended")]
    Installing(i64),
    /// Another file has taken the place of the index meanwhile.
    #[error("has another index than a moment ago: try again")]
    Replaced,
    /// Larder's own tables are of a later version.
    #[error(
        "was used by a newer larder (its tables are version {found}, this one knows {known}): upgrade larder"
    )]
    NewerLarder {
        /// Version of the tables in the home.
        found: i64,
        /// Version that this library knows.
        known: i64,
    },
}

impl HomeProblem {
    /// The error for this problem of the home at `path`.
    pub(crate) fn at(self, path: &Path) -> HomeError {
        HomeError { path: path.to_owned(), problem: self }
    }
}
