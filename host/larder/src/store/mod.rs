//! Rows and files together: changes of one that affect the other.
//!
//! - [`removal`]: removing images, index first, files second
//! - [`recovery`]: finishing interrupted removals
//! - [`gc`]: deleting files that no row owns
//! - [`full_disk`]: making room for a change on a full disk
//! - [`verify`]: comparing the index with the files
//! - [`snapshot`]: a snapshot of a home to decide on
//!
//! # Locking
//! A deletion holds the exclusive lease of its entry. It takes the lease without waiting and before the writer's
//! transaction begins. Nothing waits for a lease while it holds the writer. Readers take no lock.
//!
//! # What survives a crash
//! Rows and files, in one of two orders: files that no row owns yet, or rows that are gone with a record of their
//! files. Every change of a store first finishes the deletions in such records, including those that another
//! process has left since the last change.

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

/// The index of one home, its cache directory, and the clock for ages.
pub(crate) struct Store {
    catalog: Arc<Catalog>,
    cache: CacheDir,
    clock: Clock,
    /// The embedder's guard, in addition to the home's.
    guard: Guard,
    /// Set if this process has checked that the cache is marked.
    is_marked: Arc<AtomicBool>,
}

impl Store {
    /// Makes a store whose home is opened with its first use.
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

    /// Returns the embedder's guard, which holds in addition to the home's.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Returns the keeper of the cache for the home of this index.
    pub(crate) fn keeper(&self, connection: &Connection) -> MicrosandboxResult<Keeper> {
        keeper(connection, &self.cache)
    }

    /// Returns the current time of the clock.
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

    /// Runs `change` with the writer, off the async runtime. It runs after every earlier change, and after
    /// interrupted removals were finished.
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

    /// Runs a change like [`write`](Self::write), for a change that continues the one before it: leaves the
    /// records of deletions.
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

/// Returns the keeper of a cache for the home of this index.
pub(crate) fn keeper(connection: &Connection, cache: &CacheDir) -> MicrosandboxResult<Keeper> {
    let id = identity::home_id(connection).map_err(MicrosandboxError::db("read which home it is"))?;
    Ok(cache.keeper(id))
}
