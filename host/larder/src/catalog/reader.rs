//! Connections that read.
//!
//! A reader opens the database read-only. SQLite may be unable to create the files by which it coordinates, because
//! the directory is read-only or the disk is full. Then the database is opened as immutable if it has no write-ahead
//! log, and otherwise read from a private copy of database and log. Another mount or the owner may change a home that
//! is read-only here. So the database is opened or copied again if it changed meanwhile, and such a reader sees only
//! that one state and is not used again.
//!
//! Empty temporary tables replace tables that a home lacks, Larder's own or those of a later microsandbox, so every
//! query is written once. A reader with such stand-ins is not used again after the schema changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::time::Clock;
use super::{create, keep_statements, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::opening::{self, HomeState};
use crate::home::{BUSY_TIMEOUT, HomePaths, HomeProblem, IndexFile, MissingHome, is_full};

/// The number of attempts to open or copy a database that changes meanwhile.
const ATTEMPTS: usize = 5;

/// A file system in memory, on Linux.
const MEMORY: &str = "/dev/shm";

/// The tables that queries name and a home may lack, with the columns that the queries name.
const STAND_INS: [(&str, &str); 18] = [
    ("sandbox", "id, name, config"),
    ("sandbox_rootfs", "sandbox_id, manifest_id"),
    ("snapshot_index", "digest, name, image_manifest_digest"),
    ("larder_home", "id"),
    ("larder_pin", "reference, created_at"),
    ("larder_origin", "reference, origin, recorded_at, manifest_digest"),
    ("larder_hold", "sandbox_id, manifest_digest"),
    ("larder_deletion", "id, cache, room, name, inode, size, modified_ns, born_ns"),
    ("larder_run", "id, started_at, policy_name, policy_version, policy_hash, problem, report, duration_ms"),
    ("larder_decision", "run_id, reference, manifest_digest, decision, reason, bytes"),
    ("larder_image", "id, manifest_digest, first_seen_at, last_day, layers, booted_by, pull_ms, pull_bytes"),
    ("larder_name", "reference, image_id, named_at"),
    ("larder_use", "day, image_id, kind, hours, latest"),
    ("larder_swept", "source, at, id"),
    ("larder_job", "name, seen_at, schedule, settled_at, failures, succeeded_at"),
    ("larder_job_run", "id, job, cause, mode, started_at, ended_at, outcome, report"),
    ("larder_job_count", "job, name, label, value"),
    ("larder_disk", "at, size_bytes, available_bytes, inodes, inodes_free"),
];

/// A connection that only reads.
pub(crate) struct Reader {
    connection: Connection,
    /// The file that was opened or copied.
    file: IndexFile,
    /// The schema that this reader was made for, if it has stand-ins.
    stand_ins_for: Option<i64>,
    access: Access,
}

/// The way in which a reader accesses the database.
enum Access {
    /// Shared with other connections that read and write it.
    Shared,
    /// As a file that does not change.
    Immutable,
    /// As a private copy, which lives as long as the reader.
    Copy { _directory: TempDir },
}

/// An open database.
struct Opened {
    connection: Connection,
    access: Access,
}

impl Reader {
    pub(super) fn open(paths: &HomePaths, missing: MissingHome, clock: &Clock) -> MicrosandboxResult<Self> {
        if opening::find(paths, missing)? == HomeState::ToBeMade {
            create::make_home(paths, clock)?;
        }
        let (Opened { connection, access }, file) = paths.open_index(|| connect(paths))?;
        let stand_ins_for = prepare(&connection).map_err(paths.db("open the index"))?;
        super::read::check_schema(&connection).map_err(|error| match error {
            rusqlite::Error::SqlInputError { msg, .. } if msg.starts_with("no such") => {
                paths.problem(HomeProblem::UnknownSchema(msg))
            }
            error => paths.db("open the index")(error),
        })?;
        Ok(Self { connection, file, stand_ins_for, access })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns whether it is open on this file.
    pub(super) fn is_of(&self, file: Option<IndexFile>) -> bool {
        file == Some(self.file)
    }

    /// Returns whether it sees changes by other connections.
    pub(super) fn is_reusable(&self) -> bool {
        matches!(self.access, Access::Shared)
    }

    /// Returns whether this reader still fits the schema of its home.
    pub(super) fn is_current(&self) -> bool {
        self.stand_ins_for
            .is_none_or(|version| schema_version(&self.connection).is_ok_and(|now| now == version))
    }
}

/// Opens the database in the first way that works.
fn connect(paths: &HomePaths) -> MicrosandboxResult<Opened> {
    let error = match open_database(&paths.database, "") {
        Ok(connection) => return Ok(Opened { connection, access: Access::Shared }),
        Err(error) => error,
    };
    let cannot_share = is_full(&error)
        || matches!(
            error.sqlite_error_code(),
            Some(
                rusqlite::ErrorCode::CannotOpen
                    | rusqlite::ErrorCode::ReadOnly
                    | rusqlite::ErrorCode::PermissionDenied
            )
        );
    if !cannot_share {
        return Err(paths.db("open the index")(error));
    }
    let log = paths.db_dir.join("msb.db-wal");
    for _ in 0..ATTEMPTS {
        let before = (Stamp::of(&paths.database), Stamp::of(&log));
        let opened = if before.1.is_some_and(|log| log.size > 0) {
            open_copy(paths, &log)
        } else {
            open_database(&paths.database, "?immutable=1")
                .map(|connection| Opened { connection, access: Access::Immutable })
                .map_err(paths.db("open the index"))
        };
        if before == (Stamp::of(&paths.database), Stamp::of(&log)) {
            return opened;
        }
    }
    Err(paths.problem(HomeProblem::Locked))
}

/// The properties of a file that show if it was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: [i64; 2],
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: [metadata.mtime(), metadata.mtime_nsec()],
        })
    }
}

fn open_database(database: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(database_uri(database) + parameters, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Opening reads nothing yet: this does.
    schema_version(&connection)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    Ok(connection)
}

/// Returns the path as a URI, with special characters escaped.
fn database_uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().iter().fold(String::from("file:"), |mut uri, &byte| {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
        uri
    })
}

/// Opens a copy of database and log, in the directory for temporary files, or in memory if there is no room.
fn open_copy(paths: &HomePaths, log: &Path) -> MicrosandboxResult<Opened> {
    let files = [(paths.database.as_path(), "msb.db"), (log, "msb.db-wal")];
    let copied = copy_to(&std::env::temp_dir(), files);
    let copy = copied.or_else(|error| copy_to(Path::new(MEMORY), files).map_err(|_| error));
    let copy = copy.map_err(MicrosandboxError::io("copy", &paths.database))?;
    let connection = open_database(&copy.path().join("msb.db"), "").map_err(paths.db("open the index"))?;
    Ok(Opened { connection, access: Access::Copy { _directory: copy } })
}

/// Copies files to a new directory in `place`.
fn copy_to(place: &Path, files: [(&Path, &str); 2]) -> io::Result<TempDir> {
    let copy = tempfile::tempdir_in(place)?;
    for (from, name) in files {
        fs::copy(from, copy.path().join(name))?;
    }
    Ok(copy)
}

/// Creates the stand-ins and views. Returns the schema's version if there are stand-ins.
fn prepare(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.pragma_update(None, "temp_store", "memory")?;
    keep_statements(connection)?;
    let mut stand_ins = false;
    for (table, columns) in STAND_INS {
        if !connection.table_exists(Some("main"), table)? {
            connection.execute_batch(&format!("CREATE TEMP TABLE {table} ({columns})"))?;
            stand_ins = true;
        }
    }
    roots::prepare(connection)?;
    if stand_ins { schema_version(connection).map(Some) } else { Ok(None) }
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    // A reader with stand-ins is asked with each use.
    connection.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))
}
