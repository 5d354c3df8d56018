//! A home: where its parts lie, what is wrong with one, and which is opened.
//!
//! ```text
//! HOME/
//!   db/msb.db                    the index, with SQLite's files beside it
//!   db/msb.db.migration.lock     held by whoever opens the home for writing
//!   db/self-downgrade/*/         journals of microsandbox downgrades
//!   config.json                  the user's settings, which may say where the artifacts lie
//!   larder.toml                  the operator's guard: what stays, whoever decides ([`guard`])
//!   .larder-ballast              bytes that are given up where the disk is full ([`ballast`])
//!   cache/                       the artifacts, unless they were set to lie elsewhere
//! ```
//!
//! Before a reader connects, the home is looked at as a whole (`opening::find`): it is there, or may be made.
//! Before the writer connects, files that are not the user's own and an unfinished downgrade are refused, under the
//! migration lock. What the index says about itself is the catalog's to judge. Nothing here speaks SQL.
//!
//! # What survives a crash
//! The migration lock is a `flock`: it goes with the process. Nothing else is kept.

pub(crate) mod ballast;
pub(crate) mod config;
mod error;
pub(crate) mod guard;
mod identity;
pub(crate) mod opening;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

pub use error::{HomeError, HomeProblem};
pub use identity::{HomeId, HomeIdError, HomeIdentity};

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// How long a statement waits for another program's lock. microsandbox waits as long.
pub(crate) const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How often an index is opened that is replaced each time meanwhile.
const OPENINGS: usize = 3;

/// What to do with a home that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MissingHome {
    /// Make it, as microsandbox does.
    #[default]
    Make,
    /// Say so.
    Refuse,
}

/// The file that an index is in. Another file may be given its name, by whoever restores it from a backup.
///
/// A file that is open keeps its numbers to itself, even when it has no name any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexFile {
    device: u64,
    inode: u64,
}

/// Where the parts of a home lie.
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

    /// The file that the index is in now; none where there is none that can be seen.
    pub(crate) fn index_file(&self) -> Option<IndexFile> {
        let metadata = fs::metadata(&self.database).ok()?;
        Some(IndexFile { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Opens the index, and returns the file that was opened. Opens it again where it was replaced meanwhile.
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

    /// The error for a problem of this home.
    pub(crate) fn problem(&self, problem: HomeProblem) -> MicrosandboxError {
        problem.at(&self.home).into()
    }

    /// The problem of a full disk, on which a change needs so many bytes.
    pub(crate) fn full(&self, needed: u64) -> HomeProblem {
        HomeProblem::Full { needed, place: mount_of(&self.db_dir) }
    }

    /// What an SQLite error says about this home, where it says something about it.
    fn sqlite_problem(&self, error: &rusqlite::Error) -> Option<HomeProblem> {
        if is_full(error) {
            return Some(self.full(ballast::BYTES));
        }
        match error.sqlite_error_code()? {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Some(HomeProblem::Corrupt(error.to_string()))
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(HomeProblem::Locked),
            ErrorCode::ReadOnly => Some(HomeProblem::ReadOnly),
            ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                Some(HomeProblem::Unreadable(io::Error::other(error.to_string())))
            }
            _ => None,
        }
    }

    /// Turns an SQLite error into one that names the home where the home is to blame, for `map_err`.
    pub(crate) fn db(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> MicrosandboxError {
        move |source| self.blame(MicrosandboxError::Database { action, source })
    }

    /// An error from the index as an error of the home, where the home is to blame for it.
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

/// Returns whether SQLite found no room on the disk, be it for the index, its log, or the memory that is shared about
/// both.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// The directory at which the file system begins that a path lies on.
fn mount_of(path: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(path);
    let inside = path.ancestors().take_while(|above| device(above) == own);
    inside.last().unwrap_or(path).to_owned()
}
