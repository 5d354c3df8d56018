//! The connection that writes, and the homes that it refuses.
//!
//! While a home is opened for writing, `db/msb.db.migration.lock` is held, as microsandbox holds it during every
//! open: neither sees the other half-way through a migration. It is released before the first change.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use super::{BUSY_TIMEOUT, HomePaths, MissingHome, roots, schema, time};
use crate::artifacts::{CacheDir, removal};
use crate::backend::{Clock, HomeProblem};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The connection that writes. A process has one per home.
pub(crate) struct Writer {
    connection: Connection,
    /// The migrations that were there when the home was opened: how many, and the last.
    migrations: (i64, String),
}

impl Writer {
    pub(super) fn open(
        paths: &HomePaths,
        cache: &CacheDir,
        missing: MissingHome,
        clock: &Clock,
    ) -> MicrosandboxResult<Self> {
        if !paths.database.exists() && missing == MissingHome::Make {
            make_home(paths, clock)?;
        }
        let writer = {
            check_owner(paths)?;
            let _lock = MigrationLock::take(paths)?;
            check_downgrades(paths)?;
            Self::open_locked(paths, clock())?
        };
        let mut writer = writer;
        removal::recover(&mut writer, cache)?;
        Ok(writer)
    }

    /// Opens a database that is fit to be changed. The migration lock is held.
    fn open_locked(paths: &HomePaths, now: DateTime<Utc>) -> MicrosandboxResult<Self> {
        let mut connection =
            open_database(&paths.database).map_err(paths.db("open the index for writing"))?;
        let migrations = check_history(&connection, paths)?;
        if let Some(holder) = installing(&connection, now).map_err(paths.db("read the maintenance lease"))? {
            return Err(paths.problem(HomeProblem::Installing(holder)));
        }
        let version =
            schema::larder_version(&connection).map_err(paths.db("read the version of Larder's tables"))?;
        if version > schema::LARDER_VERSION {
            let problem = HomeProblem::NewerLarder { found: version, known: schema::LARDER_VERSION };
            return Err(paths.problem(problem));
        }
        schema::migrate_larder(&mut connection).map_err(paths.db("add Larder's tables"))?;
        roots::prepare(&connection).map_err(paths.db("open the index for writing"))?;
        Ok(Self { connection, migrations })
    }

    /// Fails where another program has migrated the home since it was opened.
    pub(super) fn check_unchanged(&self, paths: &HomePaths) -> MicrosandboxResult<()> {
        let now = migration_summary(&self.connection).map_err(paths.db("read the migrations"))?;
        if now == self.migrations { Ok(()) } else { Err(paths.problem(HomeProblem::Newer(now.1))) }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a change. Dropped without a commit, it never was.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // Opening reads nothing yet: this does, and leaves a database of microsandbox's as it is.
    let _: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    Ok(connection)
}

/// Makes a home that microsandbox opens: its directories, its tables and the record of its migrations.
pub(super) fn make_home(paths: &HomePaths, clock: &Clock) -> MicrosandboxResult<()> {
    let private = |recursive| {
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(recursive);
        builder
    };
    for directory in [&paths.home, &paths.db_dir] {
        private(true).create(directory).map_err(|error| cannot_write(paths, error))?;
    }
    let _lock = MigrationLock::take(paths)?;
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&paths.database) {
        Ok(_) => {}
        // Made meanwhile by somebody else, or left empty by a process that was killed here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(cannot_write(paths, error)),
    }
    let mut connection = open_database(&paths.database).map_err(paths.db("make the index"))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(paths.db("make the index"))?;
    if tables == 0 {
        schema::create(&mut connection, clock()).map_err(paths.db("make the index"))?;
    }
    Ok(())
}

/// An I/O error while writing to the home, as what it says about the home.
fn cannot_write(paths: &HomePaths, error: io::Error) -> MicrosandboxError {
    paths.problem(match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => HomeProblem::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HomeProblem::Full,
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => HomeProblem::NotADirectory,
        _ => HomeProblem::Unreadable(error),
    })
}

/// Refuses files of somebody else's, and files that have another name somewhere.
fn check_owner(paths: &HomePaths) -> MicrosandboxResult<()> {
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
fn check_downgrades(paths: &HomePaths) -> MicrosandboxResult<()> {
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
        let phase = match fs::read(&journal) {
            Ok(text) => serde_json::from_slice::<Journal>(&text).ok().and_then(|journal| journal.phase),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(MicrosandboxError::io("read", &journal)(error)),
        };
        // A journal that cannot be read was not finished either.
        if phase.as_deref() != Some("complete") {
            return Err(paths.problem(HomeProblem::Downgrading(journal)));
        }
    }
    Ok(())
}

/// Refuses every migration history but that of microsandbox 0.7.13.
fn check_history(connection: &Connection, paths: &HomePaths) -> MicrosandboxResult<(i64, String)> {
    let read = || -> rusqlite::Result<Option<Vec<String>>> {
        if !connection.table_exists(Some("main"), "seaql_migrations")? {
            return Ok(None);
        }
        let mut statement = connection.prepare("SELECT version FROM seaql_migrations ORDER BY version")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>().map(Some)
    };
    let found = read().map_err(paths.db("read the migrations"))?.unwrap_or_default();
    schema::check_migrations(&found).map_err(|problem| paths.problem(problem))?;
    migration_summary(connection).map_err(paths.db("read the migrations"))
}

fn migration_summary(connection: &Connection) -> rusqlite::Result<(i64, String)> {
    let mut statement = connection.prepare_cached("SELECT count(*), max(version) FROM seaql_migrations")?;
    statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The process that is installing microsandbox here, if one is.
fn installing(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<Option<i64>> {
    let lease: Option<(Option<i64>, String)> = connection
        .query_row(
            "SELECT holder_pid, lease_expires_at FROM maintenance_lease WHERE name = 'install_exclusive'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((Some(holder), expires)) = lease else { return Ok(None) };
    // A lease whose end cannot be read has not ended.
    let expired = time::parse(&expires).is_some_and(|expires| expires <= now);
    Ok((!expired && is_alive(holder)).then_some(holder))
}

fn is_alive(process: i64) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| rustix::process::test_kill_process(process) != Err(rustix::io::Errno::SRCH))
}

/// The lock that microsandbox holds while it opens a home. Released when dropped.
struct MigrationLock {
    _file: File,
}

impl MigrationLock {
    fn take(paths: &HomePaths) -> MicrosandboxResult<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 1: what is committed is on disk before anything is done because of it, and no row loses its parent.
    #[test]
    fn commits_are_durable() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().join("home"));
        let cache = CacheDir::new(paths.home.join("cache"));
        let clock: Clock = std::sync::Arc::new(|| DateTime::UNIX_EPOCH);
        let writer =
            Writer::open(&paths, &cache, MissingHome::Make, &clock).expect("a home opened for writing");
        let pragma = |name: &str| -> String {
            let text = |row: &rusqlite::Row<'_>| row.get_ref(0).map(|value| format!("{value:?}"));
            writer.connection().pragma_query_value(None, name, text).expect("a setting")
        };
        // 2 is FULL.
        assert_eq!(
            (pragma("synchronous").as_str(), pragma("foreign_keys").as_str()),
            ("Integer(2)", "Integer(1)")
        );
    }
}
