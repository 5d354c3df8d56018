//! The index of a home: the SQLite database `db/msb.db`, which microsandbox made and goes on using.
//!
//! # Connections
//! A few readers, each opened read-only with its first use, and one writer, opened with the first change. Each is
//! used by one blocking task at a time, never on the async runtime's own threads; who waits for a connection takes no
//! thread at all. Statements are compiled once per connection.
//!
//! `db/msb.db` may be replaced while it is open, by whoever restores it from a backup or makes the home again. Each use
//! of a connection compares the file of that name with the one that is open, and opens it again where it is another.
//!
//! # Reading
//! needs the tables and columns that the queries name, and nothing else: no lock, no migration, no write. A home
//! without Larder's own tables is read as one in which they are empty ([`reader`]).
//!
//! # Writing
//! refuses every home that microsandbox 0.7.13 would not open or would change first ([`writer`]). Transactions are
//! short, `BEGIN IMMEDIATE`, with foreign keys on and `synchronous=FULL`: what is committed survives a power cut.
//!
//! # What survives a crash
//! A transaction or nothing. Files that a committed transaction has given up stand in `larder_deletion`
//! ([`deletions`]); deleting them is for whoever works with files, too.

mod create;
pub(crate) mod deletions;
pub(crate) mod graph;
pub(crate) mod history;
pub(crate) mod identity;
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

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use reader::Reader;
pub(crate) use time::Clock;
pub(crate) use writer::Writer;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomePaths, MissingHome};

/// More readers than this wait for one another: listing is bound by the processor, not by waiting.
const READERS: usize = 4;

/// The index of one home.
pub(crate) struct Catalog {
    paths: HomePaths,
    missing: MissingHome,
    clock: Clock,
    permits: Arc<Semaphore>,
    readers: Mutex<Vec<Reader>>,
    /// Absent until the first change.
    writer: Arc<tokio::sync::Mutex<Option<Writer>>>,
}

/// A reader, lent by a [`Catalog`] until it is dropped. A transaction that it is in then is rolled back.
pub(crate) struct PooledReader {
    /// There until it is dropped.
    reader: Option<Reader>,
    catalog: Arc<Catalog>,
    /// Lets the next one read. A reader that is lent for long has none: it must not keep others from reading.
    _permit: Option<OwnedSemaphorePermit>,
}

impl PooledReader {
    /// Returns whether it sees what others change from now on, outside of a transaction.
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
        if !reader.is_reusable() {
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
    /// Closing the last connection writes the log into the database and waits for the disk: within a runtime that is
    /// left to a thread that may block.
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
            query(&reader).map_err(|error| catalog.paths.blame(error))
        })
        .await
    }

    /// Lends a reader to a task that runs where it may block, for as long as it wants to see one state of the index.
    pub(crate) fn reader(self: &Arc<Self>) -> MicrosandboxResult<PooledReader> {
        self.lend(None)
    }

    /// Refuses a home that must not be changed, as every change does, where something is to be changed without the
    /// writer.
    pub(crate) fn check_fit(&self, connection: &Connection) -> MicrosandboxResult<()> {
        writer::check_fit(connection, &self.paths, (self.clock)())
    }

    fn lend(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> MicrosandboxResult<PooledReader> {
        let file = self.paths.index_file();
        let idle = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|reader| reader.is_of(file));
            readers.pop()
        };
        let reader = match idle {
            Some(reader) if reader.is_current() => reader,
            _ => Reader::open(&self.paths, self.missing, &self.clock)?,
        };
        Ok(PooledReader { reader: Some(reader), catalog: Arc::clone(self), _permit: permit })
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
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        let catalog = Arc::clone(self);
        blocking(action, move || {
            let writer = match &mut *writer {
                Some(writer) if writer.is_current() => writer,
                slot => {
                    *slot = None;
                    slot.insert(Writer::open(&catalog.paths, catalog.missing, &catalog.clock)?)
                }
            };
            change(writer).map_err(|error| catalog.paths.blame(error))
        })
        .await
    }
}

/// Makes a connection keep its prepared statements as they are. SQLite would otherwise compile a statement again whenever
/// another value is bound to it that an index is searched for, which takes longer than the search.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
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
