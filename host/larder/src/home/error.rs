//! The problems that a home can have.

use std::io;
use std::path::{Path, PathBuf};

/// The error for a home that cannot be used as requested.
#[derive(Debug, thiserror::Error)]
#[error("home `{}` {problem}", .path.display())]
pub struct HomeError {
    /// The path of the home.
    pub path: PathBuf,
    /// The problem.
    pub problem: HomeProblem,
}

/// A problem of a home. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeProblem {
    /// Nothing exists at that path.
    #[error("does not exist: check `--home` or `MSB_HOME`")]
    Missing,
    /// The path is not a directory.
    #[error("is not a directory")]
    NotADirectory,
    /// The path is a directory without an index.
    #[error("is not a microsandbox home: it has no `db/msb.db`")]
    NoIndex,
    /// The home cannot be opened.
    #[error("cannot be opened: {0}")]
    Unreadable(io::Error),
    /// The home can be read and not changed.
    #[error("is read-only: listing and dry runs work, changes do not")]
    ReadOnly,
    /// The file system of the home has no space left.
    #[error(
        "is on a full disk: a change needs {needed} bytes on the file system at `{}`, and there is nothing left to give up for it; make that room and try again",
        .place.display()
    )]
    Full {
        /// The approximate number of bytes that a change needs.
        needed: u64,
        /// The mount point of the file system.
        place: PathBuf,
    },
    /// Another program has locked the index for too long.
    #[error("is busy: another program has been changing its index for five seconds; try again")]
    Locked,
    /// The index names files of a cache that is not there.
    #[error(
        "has images, and its cache `{}` is not there: mount the disk that it is on, or correct its place in `config.json`",
        .cache.display()
    )]
    CacheMissing {
        /// The directory of the cache.
        cache: PathBuf,
    },
    /// The marker of the cache names another owner than the one that was to be replaced.
    #[error("was to claim the cache `{}`, which has got another owner meanwhile: look again", .cache.display())]
    CacheOwnerChanged {
        /// The directory of the cache.
        cache: PathBuf,
    },
    /// A file belongs to another user, or has another name.
    #[error("cannot be changed: `{}` {why}", .file.display())]
    NotOurs {
        /// The file.
        file: PathBuf,
        /// The unexpected property of the file.
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
    /// An older microsandbox than 0.7.13 made the index, and no newer one has upgraded it.
    #[error(
        "was made by an older microsandbox ({found} of {known} migrations): reading works; to change it, run `msb image ls` with microsandbox 0.7.13 once, which upgrades it"
    )]
    Older {
        /// The number of migrations that the home has.
        found: usize,
        /// The number of migrations that microsandbox 0.7.13 has.
        known: usize,
    },
    /// The history of the index has a gap.
    #[error("has an index whose history lacks `{0}`: restore `db/msb.db` from a backup")]
    HistoryGap(String),
    /// The index has tables and no history of their migrations.
    #[error("has an index without migration history: it was not made by microsandbox, or was damaged")]
    NoHistory,
    /// A downgrade of microsandbox was begun and not finished.
    #[error("is in the middle of a microsandbox downgrade (`{}`): finish it with `msb` first", .0.display())]
    Downgrading(PathBuf),
    /// An installation of microsandbox is under way.
    #[error("is being installed by process {0}: try again when that has ended")]
    Installing(i64),
    /// Another file has replaced the index meanwhile.
    #[error("has another index than a moment ago: try again")]
    Replaced,
    /// Larder's own tables are from a later version.
    #[error(
        "was used by a newer larder (its tables are version {found}, this one knows {known}): upgrade larder"
    )]
    NewerLarder {
        /// The version of the tables in the home.
        found: i64,
        /// The version that this library knows.
        known: i64,
    },
}

impl HomeProblem {
    /// Returns the error for this problem of the home at `path`.
    pub(crate) fn at(self, path: &Path) -> HomeError {
        HomeError { path: path.to_owned(), problem: self }
    }
}
