//! The connection that writes, and its refusal of unsuitable indexes.
//!
//! The files of a home are checked first ([`opening`]), under the migration lock. Then the index is checked: its
//! migrations, an installation in progress, and the version of Larder's own tables. Each transaction checks all of it
//! again before its first change, because a program may have migrated the home while this one waited for its turn.

use std::cell::Cell;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::create::{make_home, open_database};
use super::journal::{self, Swept};
use super::time::Clock;
use super::{roots, schema, time};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::ballast;
use crate::home::opening::{self, HomeState, MigrationLock};
use crate::home::{BUSY_TIMEOUT, HomeError, HomePaths, HomeProblem, IndexFile, MissingHome, is_full};

/// The number of rows of each table that are swept at a time with the first change.
const SWEPT_AT_ONCE: usize = 100;

/// The time after which no more rows are swept with the first change, which waits for them.
const SWEEP_TIME: Duration = Duration::from_millis(20);

/// The connection that writes. A catalog has one.
pub(crate) struct Writer {
    connection: Connection,
    paths: HomePaths,
    clock: Clock,
    /// The file that the connection is open on.
    file: IndexFile,
    /// Set until the first change, which records what microsandbox did meanwhile.
    is_unswept: Cell<bool>,
    /// The numbers of the records of deleted files, to be removed with a later change.
    pub(crate) gone: Vec<i64>,
    /// The numbers of the records whose directories are on disk as well, to be removed with the next change.
    pub(crate) synced: Vec<i64>,
}

impl Writer {
    pub(super) fn open(paths: &HomePaths, missing: MissingHome, clock: &Clock) -> MicrosandboxResult<Self> {
        if opening::find(paths, missing)? == HomeState::ToBeMade {
            make_home(paths, clock)?;
        }
        opening::check_owner(paths)?;
        let _lock = MigrationLock::take(paths)?;
        let (connection, file) = paths.open_index(|| open_locked(paths, clock()))?;
        if let Err(error) = ballast::keep(paths) {
            tracing::warn!("could not make the ballast of `{}`: {error}", paths.home.display());
        }
        let (paths, clock) = (paths.clone(), Clock::clone(clock));
        let is_unswept = Cell::new(true);
        Ok(Self { connection, paths, clock, file, is_unswept, gone: Vec::new(), synced: Vec::new() })
    }

    /// Returns whether the index is still the file that was opened.
    pub(crate) fn is_current(&self) -> bool {
        self.paths.index_file() == Some(self.file)
    }

    /// Returns the error for an index that was replaced meanwhile.
    pub(crate) fn replaced(&self) -> MicrosandboxError {
        self.paths.problem(HomeProblem::Replaced)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a change. Dropping it without a commit rolls it back.
    ///
    /// # Errors
    /// Fails if the home must not be changed, or must not be changed any longer. Nothing was changed then.
    pub(crate) fn begin(&mut self) -> MicrosandboxResult<Transaction<'_>> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
                .map_err(self.paths.db("begin a change"))?;
            let fit = check_fit(&transaction, &self.paths, (self.clock)());
            match fit {
                Ok(()) if self.is_current() => {
                    self.sweep(&transaction);
                    // On a full disk SQLite may have ended the transaction.
                    if !transaction.is_autocommit() {
                        return Ok(transaction);
                    }
                }
                Ok(()) => return Err(self.replaced()),
                // Every start of microsandbox claims to install, for a moment.
                Err(MicrosandboxError::Home(HomeError { problem: HomeProblem::Installing(_), .. }))
                    if Instant::now() < deadline =>
                {
                    drop(transaction);
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether the disk has room for changes that can wait. On a disk that has not, clean-ups come first.
    pub(crate) fn has_room(&self) -> bool {
        ballast::has_room(&self.paths).unwrap_or(false)
    }

    /// Records in the first change what microsandbox did meanwhile ([`journal`]), or a part of it if that is much. Records
    /// nothing if the disk has little room, which is for the change.
    fn sweep(&self, transaction: &Connection) {
        if !self.is_unswept.take() || !self.has_room() {
            return;
        }
        let sweep = || -> rusqlite::Result<()> {
            transaction.execute_batch("SAVEPOINT larder_sweep")?;
            let (now, deadline) = ((self.clock)(), Instant::now() + SWEEP_TIME);
            let mut swept = journal::sweep(transaction, now, SWEPT_AT_ONCE);
            while swept == Ok(Swept::Part) && Instant::now() < deadline {
                swept = journal::sweep(transaction, now, SWEPT_AT_ONCE);
            }
            if swept.is_err() {
                transaction.execute_batch("ROLLBACK TO larder_sweep")?;
            }
            transaction.execute_batch("RELEASE larder_sweep")?;
            swept.map(drop)
        };
        if let Err(error) = sweep() {
            tracing::warn!(
                "could not record how images of `{}` were used: {error}",
                self.paths.home.display()
            );
        }
    }

    /// Runs `change` in a transaction of its own, and commits it if `change` succeeds.
    pub(crate) fn change<T>(
        &mut self,
        action: &'static str,
        change: impl FnOnce(&Connection) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        let transaction = self.begin()?;
        let result = change(&transaction)?;
        transaction.commit().map_err(MicrosandboxError::db(action))?;
        Ok(result)
    }
}

/// Opens a database and checks that it may be changed. The migration lock is held.
fn open_locked(paths: &HomePaths, now: DateTime<Utc>) -> MicrosandboxResult<Connection> {
    opening::check_downgrades(paths)?;
    let mut connection = open_database(&paths.database).map_err(paths.db("open the index for writing"))?;
    check_fit(&connection, paths, now)?;
    schema::migrate_larder(&mut connection).map_err(|error| {
        if is_full(&error) {
            // Indexes over tables that may be all of the database.
            let database = std::fs::metadata(&paths.database).map_or(0, |file| file.len());
            return paths.problem(paths.full(ballast::BYTES + database));
        }
        paths.db("add Larder's tables")(error)
    })?;
    roots::prepare(&connection).map_err(paths.db("open the index for writing"))?;
    Ok(connection)
}

/// Refuses a home that must not be changed, by its files and by what its index says about itself.
pub(super) fn check_fit(
    connection: &Connection,
    paths: &HomePaths,
    now: DateTime<Utc>,
) -> MicrosandboxResult<()> {
    opening::check_owner(paths)?;
    opening::check_downgrades(paths)?;
    check_history(connection, paths)?;
    if let Some(holder) = installing(connection, now).map_err(paths.db("read the maintenance lease"))? {
        return Err(paths.problem(HomeProblem::Installing(holder)));
    }
    let version =
        schema::larder_version(connection).map_err(paths.db("read the version of Larder's tables"))?;
    if version > schema::LARDER_VERSION {
        let problem = HomeProblem::NewerLarder { found: version, known: schema::LARDER_VERSION };
        return Err(paths.problem(problem));
    }
    Ok(())
}

/// Refuses every migration history except that of microsandbox 0.7.13.
fn check_history(connection: &Connection, paths: &HomePaths) -> MicrosandboxResult<()> {
    let read = || -> rusqlite::Result<Option<Vec<String>>> {
        if !connection.table_exists(Some("main"), "seaql_migrations")? {
            return Ok(None);
        }
        let mut statement =
            connection.prepare_cached("SELECT version FROM seaql_migrations ORDER BY version")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>().map(Some)
    };
    let found = read().map_err(paths.db("read the migrations"))?.unwrap_or_default();
    schema::check_migrations(&found).map_err(|problem| paths.problem(problem))
}

/// Returns the process that is installing microsandbox in this home, if there is one.
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
    Ok((!expired && opening::is_alive(holder)).then_some(holder))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::reader::Reader;
    use super::*;

    /// Rule 1: a commit is on disk before anything is done because of it, and no row loses its parent.
    #[test]
    fn commits_are_durable() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().join("home"));
        let clock: Clock = std::sync::Arc::new(|| DateTime::UNIX_EPOCH);
        let writer = Writer::open(&paths, MissingHome::Make, &clock).expect("a home opened for writing");
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

    /// A statement that searches for a value is compiled once on each connection, for any values.
    #[test]
    fn statements_are_compiled_once() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().join("home"));
        let clock: Clock = std::sync::Arc::new(|| DateTime::UNIX_EPOCH);
        let writer = Writer::open(&paths, MissingHome::Make, &clock).expect("a home opened for writing");
        let reader = Reader::open(&paths, MissingHome::Make, &clock).expect("a home opened for reading");
        let query = "SELECT id FROM image_ref WHERE reference = ?1";
        for connection in [writer.connection(), reader.connection()] {
            for reference in ["a", "b", "c"] {
                let mut statement = connection.prepare_cached(query).expect("a statement");
                assert!(!statement.exists([reference]).expect("an answer"));
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{reference}");
            }
        }
    }
}
