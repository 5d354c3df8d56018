//! Rows and files together: what a change of one means for the other.
//!
//! - [`removal`]: taking images out, index first, files second
//! - [`recovery`]: finishing what an interrupted removal left
//! - [`gc`]: deleting files that nothing owns
//! - [`full_disk`]: making room for a change on a full disk
//! - [`verify`]: comparing the index with the files
//! - [`snapshot`]: one state of a home to decide on
//!
//! # Locking
//! Whoever deletes an entry holds its lease exclusively, taken without waiting and before the writer's transaction
//! begins; no lease is waited for while the writer is held. Readers take no lock.
//!
//! # What survives a crash
//! Rows and files, in one of two orders: files that no row owns yet, or rows that are gone with a record of their
//! files. Every change of a store finishes what such records say before it does anything else, also what another process
//! left since the last one.

pub(crate) mod full_disk;
pub(crate) mod gc;
mod recovery;
pub(crate) mod removal;
pub(crate) mod snapshot;
pub(crate) mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::artifacts::CacheDir;
use crate::artifacts::marker::Keeper;
use crate::catalog::{Catalog, Clock, Writer, identity};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomePaths, MissingHome};
use crate::records::Guard;

/// The index of one home, the cache directory that it describes, and the clock that ages are measured by.
pub(crate) struct Store {
    catalog: Arc<Catalog>,
    cache: CacheDir,
    clock: Clock,
    /// What the embedder's own word keeps, beside the home's guard.
    guard: Guard,
    /// Whether this process has looked whether the cache is to be marked.
    is_marked: Arc<AtomicBool>,
}

impl Store {
    /// A store whose home is opened with its first use.
    pub(crate) fn new(
        paths: HomePaths,
        cache: CacheDir,
        missing: MissingHome,
        clock: Clock,
        guard: Guard,
    ) -> Self {
        let catalog = Arc::new(Catalog::new(paths, missing, Arc::clone(&clock)));
        Self { catalog, cache, clock, guard, is_marked: Arc::default() }
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) fn cache(&self) -> &CacheDir {
        &self.cache
    }

    /// What the embedder keeps, beside the home's guard.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Tells whose the cache is, for the home of this index.
    pub(crate) fn keeper(&self, connection: &Connection) -> MicrosandboxResult<Keeper> {
        keeper(connection, &self.cache)
    }

    /// What counts as now.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Runs `query` with a reader, off the async runtime.
    pub(crate) async fn read<T, F>(&self, action: &'static str, query: F) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> MicrosandboxResult<T> + Send + 'static,
    {
        self.catalog.read(action, query).await
    }

    /// Runs `change` with the writer, off the async runtime, after every change before it and after what an
    /// interrupted removal left was finished.
    pub(crate) async fn write<T, F>(&self, action: &'static str, change: F) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer, &CacheDir) -> MicrosandboxResult<T> + Send + 'static,
    {
        self.write_on(action, move |writer, cache| {
            recovery::recover(writer, cache, &mut Vec::new())?;
            change(writer, cache)
        })
        .await
    }

    /// As [`write`](Self::write), for a change that goes on with the one before it: records of deletions are left.
    pub(crate) async fn write_on<T, F>(&self, action: &'static str, change: F) -> MicrosandboxResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer, &CacheDir) -> MicrosandboxResult<T> + Send + 'static,
    {
        let (cache, is_marked) = (self.cache.clone(), Arc::clone(&self.is_marked));
        self.catalog
            .write(action, move |writer| {
                if !is_marked.swap(true, Ordering::Relaxed)
                    && let Err(error) = keeper(writer.connection(), &cache)?.claim_if_free()
                {
                    tracing::warn!("could not mark `{}`: {error}", cache.root().display());
                }
                change(writer, &cache)
            })
            .await
    }
}

/// Tells whose a cache is, for the home of this index.
pub(crate) fn keeper(connection: &Connection, cache: &CacheDir) -> MicrosandboxResult<Keeper> {
    let id = identity::home_id(connection).map_err(MicrosandboxError::db("read which home it is"))?;
    Ok(cache.keeper(id))
}
