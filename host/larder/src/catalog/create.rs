//! Creating the index of a home.
//!
//! It holds microsandbox's tables and the record of its migrations. It is created under a temporary name, in one
//! transaction, and renamed when it is on disk. A process that is killed before that leaves a file that no program
//! opens, so half a home never exists.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::time::Clock;
use super::{keep_statements, schema};
use crate::artifacts::plain::without_temporary_name;
use crate::error::MicrosandboxResult;
use crate::failpoint::failpoint;
use crate::home::opening::{self, HomeState, MigrationLock};
use crate::home::{BUSY_TIMEOUT, HomePaths, MissingHome};

/// The memory that a connection for changes takes at most for pages of the index, in KiB. With SQLite's default of 2 MiB,
/// each batch of a large removal would read again what the last one has read.
const CACHE_KIB: i64 = 32 * 1024;

/// The length of the log, in pages, at which a connection for changes moves it into the index: 16 MiB. With SQLite's default of
/// a quarter of that, a large removal would write many pages again and again, and wait for the disk each time.
const LOG_PAGES: i64 = 4000;

/// Opens a database for changes with the settings of microsandbox: durable, with foreign keys on.
pub(super) fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_statements(&connection)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // Opening reads nothing yet: this does, and leaves a database of microsandbox's as it is.
    let _: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    Ok(connection)
}

/// Creates a home that microsandbox opens: its directories, its tables and the record of its migrations.
pub(super) fn make_home(paths: &HomePaths, clock: &Clock) -> MicrosandboxResult<()> {
    opening::make_directories(paths)?;
    let _lock = MigrationLock::take(paths)?;
    if opening::find(paths, MissingHome::Make)? == HomeState::Indexed {
        // Another process made it meanwhile.
        return Ok(());
    }
    let cannot_write = |error: io::Error| opening::cannot_write(paths, error);
    // For its owner alone, as temporary files are.
    let mut name = tempfile::Builder::new();
    let file = name
        .prefix(opening::UNFINISHED)
        .tempfile_in(&paths.db_dir)
        .map_err(without_temporary_name)
        .map_err(cannot_write)?;
    let mut connection = open_database(file.path()).map_err(paths.db("make the index"))?;
    schema::create(&mut connection, clock()).map_err(paths.db("make the index"))?;
    // The last connection moves the log into the database, and takes it away.
    connection.close().map_err(|(_, error)| paths.db("make the index")(error))?;
    file.as_file().sync_all().map_err(cannot_write)?;
    failpoint!("home.written");
    // An index that is empty is replaced: a process was killed when it had just begun.
    file.persist(&paths.database).map_err(|error| cannot_write(error.error))?;
    File::open(&paths.db_dir).and_then(|directory| directory.sync_all()).map_err(cannot_write)
}
