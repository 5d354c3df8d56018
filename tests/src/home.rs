//! Homes in temporary directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, Utc};
use larder::LocalBackend;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::judge::tool;

/// The current time for tests on the fixture: a day after microsandbox made it.
pub const FIXTURE_NOW: &str = "2026-11-24T12:00:00Z";

/// A temporary home, which drop deletes.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

impl Home {
    /// Returns a home that does not exist yet.
    pub fn missing() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Copies the home that microsandbox 0.7.13 made: 41 references, three of them used by sandboxes and a snapshot.
    pub fn fixture() -> Self {
        let home = Self::missing();
        let archive = File::open(fixtures().join("msb-0.7.13-41.tar.gz")).expect("the fixture");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        archive.set_preserve_mtime(true);
        archive.unpack(home.path()).expect("the fixture unpacked");
        home
    }

    /// Makes an empty home with Larder.
    pub fn made() -> Self {
        let home = Self::missing();
        run(async { home.open().await });
        home
    }

    /// Makes another home with the same content. No process may change this one meanwhile.
    pub fn copy(&self) -> Self {
        let copy = Self::missing();
        // A backend that was dropped closes the index a little later. While another has it open, SQLite's files beside it
        // stay.
        let index = self.index();
        index.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).expect("the index is read");
        tool("cp", [OsStr::new("--archive"), self.path().as_os_str(), copy.path().as_os_str()]);
        copy
    }

    /// Returns the path of the home.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Returns the directory of its artifacts.
    pub fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Runs an operation on it in a process that ends at the n-th time that it gets to a failpoint. `program` is
    /// `larder-crash`. Returns whether it got there.
    pub fn crash(
        &self,
        program: &str,
        operation: &str,
        argument: impl AsRef<OsStr>,
        failpoint: &str,
        nth: u32,
    ) -> bool {
        let mut child = Command::new(program);
        child.arg(self.path()).arg(operation).arg(argument).args([failpoint, &nth.to_string()]);
        let output = child.output().expect("the child ran");
        let aborted = output.status.signal() == Some(6);
        assert!(
            aborted || output.status.success(),
            "{failpoint}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        aborted
    }

    /// Opens a backend on it, whose clock is always at [`FIXTURE_NOW`].
    pub async fn open(&self) -> LocalBackend {
        let now: DateTime<Utc> = FIXTURE_NOW.parse().expect("a time");
        LocalBackend::builder().home(self.path()).clock(move || now).build().await.expect("the home opened")
    }

    /// Opens its index, for reading or changing.
    pub fn index(&self) -> Connection {
        index_of(&self.path())
    }

    /// Runs statements on its index.
    pub fn execute(&self, statements: &str) {
        self.index().execute_batch(statements).expect("the statements");
    }

    /// Returns the first column of a query's rows.
    pub fn texts(&self, query: &str) -> BTreeSet<String> {
        let index = self.index();
        let mut statement = index.prepare(query).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<rusqlite::Result<_>>().expect("texts")
    }

    /// Returns the number that is the result of a query.
    pub fn count(&self, query: &str) -> i64 {
        self.index().query_row(query, [], |row| row.get(0)).expect("a number")
    }

    /// Returns the names in a directory of the cache, without locks and leases.
    pub fn files(&self, room: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.cache().join(room)) else { return BTreeSet::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        names.filter(|name| name != ".msb-leases" && !name.ends_with(".lock")).collect()
    }

    /// Returns every file below it with its content, so that a test can compare states.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.path()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let content = fs::read(&path).expect("a file");
                    files.insert(path, content);
                }
            }
        }
        files
    }

    /// Takes the lease on an entry that microsandbox takes while it reads or publishes the entry.
    pub fn lease(&self, room: &str, name: &str) -> File {
        self.try_lease(room, name).expect("nobody deletes it")
    }

    /// Takes the same lease as [`lease`](Self::lease), unless a process is deleting the entry. Returns `None` then.
    pub fn try_lease(&self, room: &str, name: &str) -> Option<File> {
        self.lock(&lease_name(room, name), FlockOperation::NonBlockingLockShared)
    }

    /// Takes the lease on an entry that a deletion takes.
    pub fn deletion(&self, room: &str, name: &str) -> File {
        self.lock(&lease_name(room, name), FlockOperation::NonBlockingLockExclusive).expect("nobody uses it")
    }

    /// Takes the lock on an entry that its maker takes.
    pub fn making(&self, room: &str, name: &str) -> File {
        let lock = format!("{room}/{name}.lock");
        self.lock(&lock, FlockOperation::NonBlockingLockExclusive).expect("nobody makes it")
    }

    fn lock(&self, path: &str, operation: FlockOperation) -> Option<File> {
        let path = self.cache().join(path);
        fs::create_dir_all(path.parent().expect("a room")).expect("the room");
        let file = File::options().create(true).truncate(false).write(true).open(path).expect("the lock");
        flock(&file, operation).is_ok().then_some(file)
    }
}

fn lease_name(room: &str, name: &str) -> String {
    let key: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{room}/.msb-leases/{key}.lock")
}

/// Opens the index of the home at a path, for reading or changing.
pub fn index_of(home: &Path) -> Connection {
    let connection = Connection::open(home.join("db/msb.db")).expect("the index opened");
    connection.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout");
    connection
}

/// Returns the directory of the fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Returns the JSON documents of a fixture with one document on each line.
pub fn lines_of(fixture: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(fixtures().join(fixture)).expect("the fixture");
    text.lines().map(|line| serde_json::from_str(line).expect("a document")).collect()
}

/// Runs a future to its end.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}
