//! The connection that writes, and the indexes that it refuses.
//!
//! What the files of a home say is looked at first ([`opening`]), under the migration lock, then what the index says
//! about itself: its migrations, an installation under way, and the version of Larder's own tables.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::create::{make_home, open_database};
use super::time::Clock;
use super::{roots, schema, time};
use crate::error::MicrosandboxResult;
use crate::home::opening::{self, MigrationLock};
use crate::home::{HomePaths, HomeProblem, MissingHome};

/// The connection that writes. A catalog has one.
pub(crate) struct Writer {
    connection: Connection,
    /// The migrations that were there when the home was opened: how many, and the last.
    migrations: (i64, String),
    /// The numbers of records of files that are gone: they are forgotten with a later change.
    pub(crate) gone: Vec<i64>,
}

impl Writer {
    pub(super) fn open(paths: &HomePaths, missing: MissingHome, clock: &Clock) -> MicrosandboxResult<Self> {
        if !paths.database.exists() && missing == MissingHome::Make {
            make_home(paths, clock)?;
        }
        opening::check_owner(paths)?;
        let _lock = MigrationLock::take(paths)?;
        opening::check_downgrades(paths)?;
        Self::open_locked(paths, clock())
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
        Ok(Self { connection, migrations, gone: Vec::new() })
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
    Ok((!expired && opening::is_alive(holder)).then_some(holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 1: what is committed is on disk before anything is done because of it, and no row loses its parent.
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
}
