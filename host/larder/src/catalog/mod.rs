//! The index of a home: the SQLite database `db/msb.db`, which microsandbox made and goes on using.
//!
//! # Connections
//! A few readers, each opened read-only with its first use, and one writer, opened with the first change. Each is
//! used by one blocking task at a time, never on the async runtime's own threads. Statements are prepared once per
//! connection.
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
//! A transaction or nothing. Files that a committed transaction has given up stand in `larder_deletion`, and the
//! next open for writing deletes them ([`crate::artifacts::removal`]).

pub(crate) mod change;
mod create;
pub(crate) mod history;
pub(crate) mod pins;
pub(crate) mod publish;
pub(crate) mod read;
mod reader;
pub(crate) mod roots;
mod schema;
pub(crate) mod snapshot;
mod time;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OnceCell, Semaphore};

pub(crate) use reader::Reader;
pub(crate) use time::Clock;
pub(crate) use writer::Writer;

use crate::artifacts::CacheDir;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomePaths, MissingHome};

/// More readers than this wait for one another: listing is bound by the processor, not by waiting.
const READERS: usize = 4;

/// The index of one home, and the cache directory that it describes.
pub(crate) struct Catalog {
    paths: HomePaths,
    cache: CacheDir,
    missing: MissingHome,
    clock: Clock,
    permits: Semaphore,
    readers: Mutex<Vec<Reader>>,
    writer: OnceCell<Arc<Mutex<Writer>>>,
}

impl Catalog {
    pub(crate) fn new(paths: HomePaths, cache: CacheDir, missing: MissingHome, clock: Clock) -> Self {
        Self {
            paths,
            cache,
            missing,
            clock,
            permits: Semaphore::new(READERS),
            readers: Mutex::new(Vec::new()),
            writer: OnceCell::new(),
        }
    }

    pub(crate) fn paths(&self) -> &HomePaths {
        &self.paths
    }

    pub(crate) fn cache(&self) -> &CacheDir {
        &self.cache
    }

    /// Runs `query` with a reader, off the async runtime.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, action: &'static str, query: F) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> MicrosandboxResult<T> + Send + 'static,
    {
        let _permit =
            self.permits.acquire().await.map_err(|_| MicrosandboxError::Interrupted(action.to_owned()))?;
        let catalog = Arc::clone(self);
        blocking(action, move || {
            let reader = catalog.take_reader()?;
            let result = query(reader.connection()).map_err(|error| catalog.paths.blame(error));
            catalog.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            result
        })
        .await
    }

    /// A reader for one task, for as long as it wants to see one state of the index.
    pub(crate) fn take_reader(&self) -> MicrosandboxResult<Reader> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(reader) if reader.is_current() => Ok(reader),
            _ => Reader::open(&self.paths, self.missing, &self.clock),
        }
    }

    /// Runs `change` with the writer, off the async runtime and after every change before it.
    pub(crate) async fn write<T, F>(
        self: &Arc<Self>,
        action: &'static str,
        change: F,
    ) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer, &CacheDir) -> MicrosandboxResult<T> + Send + 'static,
    {
        let writer = Arc::clone(self.writer.get_or_try_init(|| self.open_writer()).await?);
        let catalog = Arc::clone(self);
        blocking(action, move || {
            // A change that panicked has left no transaction open: they roll back when dropped.
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.check_unchanged(&catalog.paths)?;
            change(&mut writer, &catalog.cache).map_err(|error| catalog.paths.blame(error))
        })
        .await
    }

    async fn open_writer(self: &Arc<Self>) -> MicrosandboxResult<Arc<Mutex<Writer>>> {
        let catalog = Arc::clone(self);
        blocking("open the index", move || {
            let writer = Writer::open(&catalog.paths, &catalog.cache, catalog.missing, &catalog.clock)?;
            Ok(Arc::new(Mutex::new(writer)))
        })
        .await
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
