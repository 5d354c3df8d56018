//! The index of a home that is made.
//!
//! It holds microsandbox's tables and the record of its migrations, in one transaction. A process that is killed
//! before that leaves an empty database.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::schema;
use super::time::Clock;
use crate::error::MicrosandboxResult;
use crate::home::opening::{self, MigrationLock};
use crate::home::{BUSY_TIMEOUT, HomePaths};

/// Opens a database for changes, as microsandbox does: durable, with foreign keys on.
pub(super) fn open_database(path: &Path) -> rusqlite::Result<Connection> {
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
    opening::make_directories(paths)?;
    let _lock = MigrationLock::take(paths)?;
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&paths.database) {
        Ok(_) => {}
        // Made meanwhile by somebody else, or left empty by a process that was killed here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(opening::cannot_write(paths, error)),
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
