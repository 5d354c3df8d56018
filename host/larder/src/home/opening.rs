//! Checks before a home is opened, which refuse what must not be changed.
//!
//! While a home is opened for writing, `db/msb.db.migration.lock` is held. microsandbox holds it during every open,
//! too, so neither sees the other in the middle of a migration. It is released before the first change.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use super::{BUSY_TIMEOUT, HomePaths, HomeProblem, MissingHome, ballast, config};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The state of a home that can be read, or created and then read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HomeState {
    /// The home has an index.
    Indexed,
    /// The home is missing, or only has an installation that never ran. It may be created.
    ToBeMade,
}

/// Checks the state of a home. A missing home that may be created is not an error.
pub(crate) fn find(paths: &HomePaths, missing: MissingHome) -> MicrosandboxResult<HomeState> {
    let kind = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(HomeProblem::NotADirectory),
        Err(error) => Err(HomeProblem::Unreadable(error)),
    };
    let checked = (|| {
        let Some(home) = kind(&paths.home)? else {
            return if missing == MissingHome::Make {
                Ok(HomeState::ToBeMade)
            } else {
                Err(HomeProblem::Missing)
            };
        };
        if !home.is_dir() {
            return Err(HomeProblem::NotADirectory);
        }
        let database = kind(&paths.database)?;
        if database.is_some_and(|database| database.is_file() && database.len() > 0) {
            return Ok(HomeState::Indexed);
        }
        if missing == MissingHome::Make && never_ran(paths).map_err(HomeProblem::Unreadable)? {
            Ok(HomeState::ToBeMade)
        } else {
            Err(HomeProblem::NoIndex)
        }
    })();
    checked.map_err(|problem| paths.problem(problem))
}

/// The directories that an installation of microsandbox makes in a home before it first runs.
const INSTALLED: [&str; 2] = ["bin", "lib"];

/// The beginning of the temporary names under which an index is created.
pub(crate) const UNFINISHED: &str = ".msb-db-";

/// Returns whether a directory without an index contains only an installation of microsandbox that never ran, its
/// settings, and the remains of a process that was killed while it created the index. An empty directory counts, too.
fn never_ran(paths: &HomePaths) -> io::Result<bool> {
    let (mut settings, mut others) = (false, false);
    for entry in fs::read_dir(&paths.home)? {
        match entry?.file_name().to_str() {
            Some("db") if !has_unfinished_index(paths)? => return Ok(false),
            Some("db") => others = true,
            Some(name) if INSTALLED.contains(&name) => others = true,
            Some("config.json") => settings = true,
            _ => return Ok(false),
        }
    }
    // Other programs have a file of that name as well.
    Ok(others || !settings)
}

/// Returns whether a database directory contains only an index that was begun and not finished. An index file of 0
/// bytes counts as unfinished: microsandbox or SQLite may have been killed before the first write.
fn has_unfinished_index(paths: &HomePaths) -> io::Result<bool> {
    for entry in fs::read_dir(&paths.db_dir)? {
        let entry = entry?;
        let begun = match entry.file_name().to_str() {
            Some("msb.db.migration.lock") => true,
            Some("msb.db" | "msb.db-wal") => {
                entry.metadata().is_ok_and(|file| file.is_file() && file.len() == 0)
            }
            Some(name) => name.starts_with(UNFINISHED),
            None => false,
        };
        if !begun {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates the directories of a home, accessible only to their owner.
pub(crate) fn make_directories(paths: &HomePaths) -> MicrosandboxResult<()> {
    for directory in [&paths.home, &paths.db_dir] {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(directory);
        made.map_err(|error| cannot_write(paths, error))?;
    }
    Ok(())
}

/// Turns an I/O error while writing to the home into the problem of the home that it means.
pub(crate) fn cannot_write(paths: &HomePaths, error: io::Error) -> MicrosandboxError {
    paths.problem(match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => HomeProblem::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => paths.full(ballast::BYTES),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => HomeProblem::NotADirectory,
        _ => HomeProblem::Unreadable(error),
    })
}

/// Refuses files of another user, and files that have another name elsewhere.
pub(crate) fn check_owner(paths: &HomePaths) -> MicrosandboxResult<()> {
    let user = rustix::process::geteuid().as_raw();
    let log = paths.db_dir.join("msb.db-wal");
    for (path, required) in
        [(&paths.home, true), (&paths.db_dir, true), (&paths.database, true), (&log, false)]
    {
        let refuse = |why| paths.problem(HomeProblem::NotOurs { file: path.clone(), why });
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound && *path == paths.home => {
                return Err(paths.problem(HomeProblem::Missing));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(paths.problem(HomeProblem::NoIndex));
            }
            Err(error) => return Err(paths.problem(HomeProblem::Unreadable(error))),
        };
        // The home itself may be a link: that is where the operator wants it.
        let metadata = if *path == paths.home {
            fs::metadata(path).map_err(|error| paths.problem(HomeProblem::Unreadable(error)))?
        } else {
            metadata
        };
        if metadata.is_symlink() {
            return Err(refuse("is a symbolic link"));
        }
        if metadata.uid() != user {
            return Err(refuse("belongs to another user: run as its owner"));
        }
        if metadata.is_file() && metadata.nlink() != 1 {
            return Err(refuse("has a second name (a hard link): copy it, and replace it by the copy"));
        }
    }
    Ok(())
}

/// Refuses a home in which a downgrade of microsandbox was begun and not finished.
pub(crate) fn check_downgrades(paths: &HomePaths) -> MicrosandboxResult<()> {
    #[derive(Deserialize)]
    struct Journal {
        phase: Option<String>,
    }
    let entries = match fs::read_dir(&paths.downgrades) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(MicrosandboxError::io("read", &paths.downgrades)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(MicrosandboxError::io("read", &paths.downgrades))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let journal = entry.path().join("journal.json");
        // A journal that cannot be read was not finished either.
        let phase = config::read_if_any(&journal)
            .ok()
            .flatten()
            .and_then(|text| serde_json::from_slice::<Journal>(&text).ok()?.phase);
        if phase.as_deref() != Some("complete") {
            return Err(paths.problem(HomeProblem::Downgrading(journal)));
        }
    }
    Ok(())
}

/// Returns whether a process with this number runs.
pub(crate) fn is_alive(process: i64) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| rustix::process::test_kill_process(process) != Err(rustix::io::Errno::SRCH))
}

/// The lock that microsandbox holds while it opens a home. Drop releases it.
pub(crate) struct MigrationLock {
    _file: File,
}

impl MigrationLock {
    pub(crate) fn take(paths: &HomePaths) -> MicrosandboxResult<Self> {
        let path = &paths.migration_lock;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| cannot_write(paths, error))?;
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(paths.problem(HomeProblem::Locked)),
                Err(error) => return Err(MicrosandboxError::io("lock", path)(error.into())),
            }
        }
    }
}
