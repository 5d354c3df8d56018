//! The index of a home: the SQLite database `db/msb.db`, which microsandbox created and still uses.
//!
//! # Connections
//! The catalog has a few readers, each opened read-only with its first use, and one writer, opened with the first
//! change. Each is used by one blocking task at a time, never on the async runtime's own threads. A task that waits for
//! a connection takes no thread. Statements are compiled once per connection.
//!
//! `db/msb.db` may be replaced while it is open, by a restore from a backup or by creating the home again. Each use of
//! a connection compares the current file of that name with the one that is open, and opens the new file if they
//! differ.
//!
//! Locks of the index belong to the process. If the system fails to release one, SQLite keeps it until the process has no
//! connection to that file. So when a lock cannot be had, idle connections are closed, and those in use are closed instead
//! of becoming idle. Whoever asks next has new ones.
//!
//! # Reading
//! Reading needs only the tables and columns that the queries name: no lock, no migration, no write. A home without
//! Larder's own tables is read as if they were empty ([`reader`]).
//!
//! # Writing
//! The writer refuses every home that microsandbox 0.7.13 would not open, or would change first ([`writer`]).
//! Transactions are short, `BEGIN IMMEDIATE`, with foreign keys on and `synchronous=FULL`: a committed transaction
//! survives a power cut.
//!
//! # What survives a crash
//! A transaction or nothing. Files that a committed transaction released for deletion are recorded in `larder_deletion`
//! ([`deletions`]). The store deletes them.

mod create;
pub(crate) mod decisions;
pub(crate) mod deletions;
pub(crate) mod graph;
pub(crate) mod history;
pub(crate) mod identity;
#[cfg(feature = "policy")]
pub(crate) mod jobs;
pub(crate) mod journal;
mod lenient;
#[cfg(test)]
mod linear;
pub(crate) mod owners;
pub(crate) mod pins;
pub(crate) mod publish;
pub(crate) mod read;
mod reader;
pub(crate) mod removal_set;
pub(crate) mod remove;
pub(crate) mod roots;
mod schema;
mod time;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use reader::Reader;
pub(crate) use time::Clock;
pub(crate) use writer::Writer;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomeError, HomePaths, HomeProblem, MissingHome};

/// The maximum number of readers at once. More readers would not be faster: listing is bound by the processor.
const READERS: usize = 4;

/// The index of one home.
pub(crate) struct Catalog {
    paths: HomePaths,
    missing: MissingHome,
    clock: Clock,
    permits: Arc<Semaphore>,
    readers: Mutex<Vec<Reader>>,
    /// The number of times that connections were closed because a lock could not be had.
    closures: AtomicU64,
    /// The writer. Absent until the first change.
    writer: Arc<tokio::sync::Mutex<Option<Writer>>>,
}

/// A reader that a [`Catalog`] lends until drop. Drop rolls back a transaction of the reader.
pub(crate) struct PooledReader {
    /// The reader. Present until drop.
    reader: Option<Reader>,
    catalog: Arc<Catalog>,
    /// The closures before it was lent. After another one it is closed on drop.
    closures: u64,
    /// The permit, whose drop lets the next reader run. Absent for a reader that is lent for long, because it must not
    /// block others.
    _permit: Option<OwnedSemaphorePermit>,
}

impl PooledReader {
    /// Returns whether it sees later changes of other connections, outside of a transaction.
    pub(crate) fn sees_changes(&self) -> bool {
        self.reader.as_ref().is_some_and(Reader::is_reusable)
    }
}

impl std::ops::Deref for PooledReader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.reader.as_ref().expect("a reader is there until it is dropped").connection()
    }
}

impl Drop for PooledReader {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let connection = reader.connection();
        if !reader.is_reusable() || self.closures != self.catalog.closures.load(Ordering::Relaxed) {
            return;
        }
        if !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err() {
            return;
        }
        let mut idle = self.catalog.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(reader);
        }
    }
}

impl Drop for Catalog {
    /// Closes the connection. Closing the last connection writes the log into the database and waits for the disk, so
    /// within a runtime it happens on a thread that may block.
    fn drop(&mut self) {
        let readers = std::mem::take(self.readers.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Whoever has it closes it.
        let writer = self.writer.try_lock().ok().and_then(|mut writer| writer.take());
        if readers.is_empty() && writer.is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The writer last: only it can write the log into the database.
            runtime.spawn_blocking(move || drop((readers, writer)));
        }
    }
}

impl Catalog {
    pub(crate) fn new(paths: HomePaths, missing: MissingHome, clock: Clock) -> Self {
        Self {
            paths,
            missing,
            clock,
            permits: Arc::new(Semaphore::new(READERS)),
            readers: Mutex::new(Vec::new()),
            closures: AtomicU64::new(0),
            writer: Arc::default(),
        }
    }

    pub(crate) fn paths(&self) -> &HomePaths {
        &self.paths
    }

    /// Runs `query` with a reader, off the async runtime. At most [`READERS`] queries run at once.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, action: &'static str, query: F) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> MicrosandboxResult<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| MicrosandboxError::Interrupted(action.to_owned()))?;
        let catalog = Arc::clone(self);
        blocking(action, move || {
            let reader = catalog.lend(Some(permit))?;
            query(&reader).map_err(|error| catalog.blame(error))
        })
        .await
    }

    /// Runs `query` with a reader, on this thread, and once more with a new one if the index could not be locked.
    pub(crate) fn ask<T>(
        self: &Arc<Self>,
        action: &'static str,
        mut query: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> MicrosandboxResult<T> {
        let mut ask = || query(&*self.reader()?).map_err(self.db(action));
        ask().or_else(|error| if is_locked(&error) { ask() } else { Err(error) })
    }

    /// Lends a reader to a blocking task, for as long as the task needs to see one state of the index.
    pub(crate) fn reader(self: &Arc<Self>) -> MicrosandboxResult<PooledReader> {
        self.lend(None)
    }

    /// Refuses a home that must not be changed, with the checks of every change, for a change that does not use the
    /// writer.
    pub(crate) fn check_fit(&self, connection: &Connection) -> MicrosandboxResult<()> {
        writer::check_fit(connection, &self.paths, (self.clock)())
    }

    /// Returns a function for `map_err` that turns an error of a connection into an error of the home, if the home is the
    /// cause.
    pub(crate) fn db(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> MicrosandboxError {
        move |source| self.blame(MicrosandboxError::Database { action, source })
    }

    /// Turns an error of a connection into an error of the home, if the home is the cause. Closes connections if the index
    /// could not be locked.
    fn blame(&self, error: MicrosandboxError) -> MicrosandboxError {
        let error = self.paths.blame(error);
        if is_locked(&error) {
            self.closures.fetch_add(1, Ordering::Relaxed);
            drop(std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner)));
            // Whoever uses the writer closes it.
            drop(self.writer.try_lock().ok().and_then(|mut writer| writer.take()));
        }
        error
    }

    fn lend(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> MicrosandboxResult<PooledReader> {
        let file = self.paths.index_file();
        let closures = self.closures.load(Ordering::Relaxed);
        let idle = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|reader| reader.is_of(file));
            readers.pop()
        };
        let reader = match idle {
            Some(reader) if reader.is_current() => reader,
            _ => Reader::open(&self.paths, self.missing, &self.clock).map_err(|error| self.blame(error))?,
        };
        Ok(PooledReader { reader: Some(reader), catalog: Arc::clone(self), closures, _permit: permit })
    }

    /// Runs `change` with the writer, off the async runtime and after every change before it.
    pub(crate) async fn write<T, F>(
        self: &Arc<Self>,
        action: &'static str,
        change: F,
    ) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> MicrosandboxResult<T> + Send + 'static,
    {
        // A change that panics leaves no transaction open: it rolls back when dropped.
        let mut slot = Arc::clone(&self.writer).lock_owned().await;
        let catalog = Arc::clone(self);
        blocking(action, move || {
            let changed = catalog.writer_in(&mut slot).and_then(change);
            changed.map_err(|error| {
                let error = catalog.blame(error);
                if is_locked(&error) {
                    *slot = None;
                }
                error
            })
        })
        .await
    }

    /// Returns the writer, which is opened if there is none for the current file.
    fn writer_in<'w>(&self, slot: &'w mut Option<Writer>) -> MicrosandboxResult<&'w mut Writer> {
        drop(slot.take_if(|writer| !writer.is_current()));
        match slot {
            Some(writer) => Ok(writer),
            empty => Ok(empty.insert(Writer::open(&self.paths, self.missing, &self.clock)?)),
        }
    }
}

impl Catalog {
    /// Gives back the memory that idle connections keep for pages of the index. The next use reads pages again.
    pub(crate) async fn release_memory(self: &Arc<Self>) -> MicrosandboxResult<()> {
        let action = "release memory";
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let catalog = Arc::clone(self);
        blocking(action, move || {
            drop(std::mem::take(&mut *catalog.readers.lock().unwrap_or_else(PoisonError::into_inner)));
            let released =
                writer.as_ref().map(|writer| writer.connection().execute_batch("PRAGMA shrink_memory"));
            released.transpose().map(drop).map_err(catalog.paths.db(action))
        })
        .await
    }
}

/// Returns a number that stands for the state of the index as far as other connections change it: it differs after they did.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Returns whether a lock of the index could not be had.
fn is_locked(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Home(HomeError { problem: HomeProblem::Locked, .. }))
}

/// Makes a connection keep its prepared statements unchanged. Otherwise SQLite would compile a statement again for each
/// new value that an index is searched for, which takes longer than the search.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// A flag for work that runs elsewhere. It is dropped with the future that waits for the work, and drop sets the flag.
#[derive(Default)]
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that blocks, off the async runtime.
pub(crate) async fn blocking<T, F>(action: &'static str, work: F) -> MicrosandboxResult<T>
where
    T: Send + 'static,
    F: FnOnce() -> MicrosandboxResult<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(MicrosandboxError::Interrupted(action.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::ffi;

    use super::*;

    /// The number of files below this directory that this process has open.
    fn open_below(directory: &Path) -> usize {
        let files = std::fs::read_dir("/proc/self/fd").expect("the descriptors");
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(directory)).count()
    }

    fn locked() -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_PROTOCOL), None)
    }

    fn fail() -> MicrosandboxResult<()> {
        Err(MicrosandboxError::Database { action: "look", source: locked() })
    }

    /// When the index cannot be locked, whether for a reader or for the writer, no connection of the process stays open that
    /// could keep the lock, and the next use has new ones.
    #[tokio::test]
    async fn locks_end_with_the_connections() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().join("home"));
        let clock: Clock = Arc::new(|| chrono::DateTime::UNIX_EPOCH);
        let catalog = Arc::new(Catalog::new(paths, MissingHome::Make, clock));
        let is_locked = |failed: MicrosandboxResult<()>| super::is_locked(&failed.expect_err("a failure"));
        for fails_to_write in [false, true] {
            catalog.write("change", |_| Ok(())).await.expect("a change");
            catalog.read("look", |_| Ok(())).await.expect("an answer");
            assert!(open_below(home.path()) > 0);
            let lent = catalog.reader().expect("a reader");
            let failed = if fails_to_write {
                catalog.write("change", |_| fail()).await
            } else {
                catalog.read("look", |_| fail()).await
            };
            assert!(is_locked(failed));
            drop(lent);
            assert_eq!(open_below(home.path()), 0, "{fails_to_write}");
        }
        let mut answers = [Err(locked()), Ok(1)].into_iter();
        let asked = catalog.ask("look", |_| answers.next().expect("one question more"));
        assert_eq!(asked.expect("the second answer"), 1);
    }
}
