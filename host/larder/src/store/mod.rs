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
mod side_by_side;
pub(crate) mod snapshot;
pub(crate) mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::artifacts::marker::{CacheOwner, Keeper};
use crate::artifacts::{CacheDir, Entry};
use crate::catalog::{Catalog, Clock, Writer, deletions, identity, owners};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomeId, HomeIdentity, HomePaths, HomeProblem, MissingHome};
use crate::records::{Guard, RecoveredFiles};

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

    /// Returns the identity of the home of this index.
    pub(crate) fn identity(&self, connection: &Connection) -> MicrosandboxResult<HomeIdentity> {
        Ok(HomeIdentity::new(home_id(connection)?, &self.catalog.paths().home))
    }

    /// Returns the owner of the cache, as far as its marker and its files tell.
    pub(crate) fn cache_owner(&self, connection: &Connection) -> MicrosandboxResult<CacheOwner> {
        let owner = self.keeper(connection)?.owner();
        let is_missing = owner == CacheOwner::Nobody && is_lost(connection, &self.cache)?;
        Ok(if is_missing { CacheOwner::Missing } else { owner })
    }

    /// Checks that the cache is there, where rows own files in it. Without it, a removal would forget rows whose files
    /// are on a disk that is not mounted.
    ///
    /// # Errors
    /// [`CacheMissing`](HomeProblem::CacheMissing).
    pub(crate) fn check_cache(&self, connection: &Connection) -> MicrosandboxResult<()> {
        if is_lost(connection, &self.cache)? {
            let cache = self.cache.root().to_owned();
            return Err(HomeProblem::CacheMissing { cache }.at(&self.catalog.paths().home).into());
        }
        Ok(())
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
            let mut recovered = Vec::new();
            let finished = recovery::recover(writer, cache, &mut recovered);
            let RecoveredFiles { bytes, files } = recovery::counted(&recovered);
            if files > 0 {
                tracing::info!("finished an earlier removal: deleted {files} files of {bytes} bytes");
            }
            finished?;
            change(writer, cache)
        })
        .await
    }

    /// Finishes interrupted removals. Returns the files that were deleted, and whether their records could be removed.
    pub(crate) async fn recover(&self) -> MicrosandboxResult<(RecoveredFiles, MicrosandboxResult<()>)> {
        self.write_on("finish interrupted removals", |writer, cache| {
            let mut recovered = Vec::new();
            let finished = recovery::recover(writer, cache, &mut recovered);
            Ok((recovery::counted(&recovered), finished))
        })
        .await
    }

    /// Returns the number of files that interrupted removals have left, and removals that are in progress.
    pub(crate) fn count_unfinished(&self, connection: &Connection) -> MicrosandboxResult<u64> {
        deletions::count(connection, &recovery::name_of(&self.cache))
            .map_err(MicrosandboxError::db("read the files to delete"))
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
                if !is_marked.load(Ordering::Relaxed) {
                    // A cache that cannot be marked stops no change that needs none.
                    let looked = mark(writer.connection(), &cache).unwrap_or_else(|error| {
                        tracing::warn!("could not mark `{}`: {error}", cache.root().display());
                        true
                    });
                    is_marked.store(looked, Ordering::Relaxed);
                }
                change(writer, &cache)
            })
            .await
    }
}

/// Returns the keeper of a cache for the home of this index.
pub(crate) fn keeper(connection: &Connection, cache: &CacheDir) -> MicrosandboxResult<Keeper> {
    cache.keeper(home_id(connection)?).map_err(MicrosandboxError::io("find the place of", cache.root()))
}

/// Marks a cache that is certainly this home's. Returns false if it is not there, so that it has to be looked at again.
fn mark(connection: &Connection, cache: &CacheDir) -> MicrosandboxResult<bool> {
    let is_there = !is_lost(connection, cache)?;
    if is_there {
        let marked = keeper(connection, cache)?.claim_if_free();
        marked.map_err(MicrosandboxError::io("write the marker of", cache.root()))?;
    }
    Ok(is_there)
}

fn home_id(connection: &Connection) -> MicrosandboxResult<Option<HomeId>> {
    identity::home_id(connection).map_err(MicrosandboxError::db("read which home it is"))
}

/// Returns whether rows own files in a cache that is not there: it is not marked as this home's, and has none of them.
fn is_lost(connection: &Connection, cache: &CacheDir) -> MicrosandboxResult<bool> {
    if keeper(connection, cache)?.is_marked_as_ours() {
        return Ok(false);
    }
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    // What cannot be looked at is there.
    let is_there = |entry: &Entry| !matches!(rooms.stat(entry), Ok(None));
    let found = owners::any_there(connection, is_there);
    Ok(found.map_err(MicrosandboxError::db("find out what owns files"))? == Some(false))
}
