//! A home: the paths of its parts, the problems that it can have, and the choice of the file that is opened.
//!
//! ```text
//! HOME/
//!   db/                          locked, shared, while a run is on record that has not ended ([`RunLock`])
//!   db/msb.db                    the index, with SQLite's files beside it
//!   db/msb.db.migration.lock     held while a process opens the home for writing
//!   db/self-downgrade/*/         journals of microsandbox downgrades
//!   config.json                  the user's settings, which may name another directory for the artifacts
//!   larder.toml                  the operator's guard: the images that stay, whoever decides ([`guard`])
//!   .larder-ballast              bytes that are freed if the disk is full ([`ballast`])
//!   cache/                       the artifacts, unless they were set to be elsewhere
//! ```
//!
//! Before a reader connects, the home is checked as a whole (`opening::find`): it exists, or may be created. Before
//! the writer connects, files of another user and an unfinished downgrade are refused, under the migration lock. The
//! catalog checks what the index itself contains. Nothing here uses SQL.
//!
//! # What survives a crash
//! The migration lock and the lock of runs (`run_lock.rs`) are `flock`s: they end with the process. Nothing else is kept.

pub(crate) mod ballast;
pub(crate) mod config;
mod error;
pub(crate) mod guard;
#[cfg(feature = "policy")]
pub(crate) mod host;
mod identity;
pub(crate) mod opening;
mod run_lock;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

pub use error::{HomeError, HomeProblem};
pub use identity::{HomeId, HomeIdError, HomeIdentity};
#[cfg(feature = "policy")]
pub(crate) use run_lock::JobLock;
pub(crate) use run_lock::RunLock;

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The time that a statement waits for another program's lock. microsandbox waits as long.
pub(crate) const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The number of attempts to open an index that is replaced during each attempt.
const OPENINGS: usize = 3;

/// The treatment of a home that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MissingHome {
    /// Create it, as microsandbox does.
    #[default]
    Make,
    /// Fail.
    Refuse,
}

/// The identity of the file of an index. A restore from a backup may put another file under the same name.
///
/// While the file is open, no other file gets its numbers, even if the file has no name any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexFile {
    device: u64,
    inode: u64,
}

/// The paths of a home's parts.
#[derive(Debug, Clone)]
pub(crate) struct HomePaths {
    pub(crate) home: PathBuf,
    pub(crate) db_dir: PathBuf,
    pub(crate) database: PathBuf,
    pub(crate) migration_lock: PathBuf,
    pub(crate) downgrades: PathBuf,
    pub(crate) ballast: PathBuf,
    pub(crate) settings: PathBuf,
}

impl HomePaths {
    pub(crate) fn new(home: PathBuf) -> Self {
        let db_dir = home.join("db");
        Self {
            database: db_dir.join("msb.db"),
            migration_lock: db_dir.join("msb.db.migration.lock"),
            downgrades: db_dir.join("self-downgrade"),
            ballast: home.join(".larder-ballast"),
            settings: home.join("larder.toml"),
            db_dir,
            home,
        }
    }

    /// Returns the current file of the index, or `None` if it does not exist or cannot be seen.
    pub(crate) fn index_file(&self) -> Option<IndexFile> {
        let metadata = fs::metadata(&self.database).ok()?;
        Some(IndexFile { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Opens the index, and returns the file that was opened. Opens it again if it was replaced meanwhile.
    pub(crate) fn open_index<T>(
        &self,
        mut open: impl FnMut() -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<(T, IndexFile)> {
        for _ in 0..OPENINGS {
            let before = self.index_file();
            let opened = open()?;
            match before.filter(|_| before == self.index_file()) {
                Some(file) => return Ok((opened, file)),
                None => drop(opened),
            }
        }
        Err(self.problem(HomeProblem::Replaced))
    }

    /// Returns the error for a problem of this home.
    pub(crate) fn problem(&self, problem: HomeProblem) -> MicrosandboxError {
        problem.at(&self.home).into()
    }

    /// Returns the problem of a full disk, on which a change needs this many bytes.
    pub(crate) fn full(&self, needed: u64) -> HomeProblem {
        HomeProblem::Full { needed, place: mount_of(&self.db_dir) }
    }

    /// Returns the problem of this home that an SQLite error means, if it means one.
    fn sqlite_problem(&self, error: &rusqlite::Error) -> Option<HomeProblem> {
        if is_full(error) {
            return Some(self.full(ballast::BYTES));
        }
        match error.sqlite_error_code()? {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Some(HomeProblem::Corrupt(error.to_string()))
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Some(HomeProblem::Locked)
            }
            ErrorCode::ReadOnly => Some(HomeProblem::ReadOnly),
            ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                Some(HomeProblem::Unreadable(io::Error::other(error.to_string())))
            }
            _ => None,
        }
    }

    /// Returns a function for `map_err` that turns an SQLite error into an error of the home, if the home is the cause.
    pub(crate) fn db(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> MicrosandboxError {
        move |source| self.blame(MicrosandboxError::Database { action, source })
    }

    /// Turns an error from the index into an error of the home, if the home is the cause.
    pub(crate) fn blame(&self, error: MicrosandboxError) -> MicrosandboxError {
        match &error {
            MicrosandboxError::Database { source, .. } => match self.sqlite_problem(source) {
                Some(problem) => self.problem(problem),
                None => error,
            },
            _ => error,
        }
    }
}

/// Returns whether SQLite found no room on the disk for the index, its log, or its shared memory.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Returns the mount point of the file system that holds a path.
fn mount_of(path: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(path);
    let inside = path.ancestors().take_while(|above| device(above) == own);
    inside.last().unwrap_or(path).to_owned()
}
