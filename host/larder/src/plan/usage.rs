//! What a cache takes on disk, and what a prune would free.

use std::sync::Arc;

use serde::Serialize;

use super::document::Uncollected;
use super::guard;
use super::prune::{self, PlannedPrune, Scope};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::records::Guard;
use crate::snapshot::ImageRecord;
use crate::store::snapshot::{HomeSnapshot, disk_status};

/// What a cache takes on disk. Keys in alphabetical order, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Available on the file system.
    pub available_bytes: u64,
    /// Allocated by all files of the cache.
    pub cache_bytes: u64,
    /// Size of the file system.
    pub capacity_bytes: u64,
    /// References in the index.
    pub images: usize,
    /// Of these, used by a sandbox or a snapshot.
    pub in_use: usize,
    /// Of these, pinned.
    pub pinned: usize,
    /// What a prune would free: that of unused images and that of what nothing owns or reaches.
    pub reclaimable_bytes: u64,
    /// The files that no row of this home owns and that a prune leaves, since the cache may be another home's as well.
    /// Absent where there are none.
    pub uncollected: Option<Uncollected>,
    /// What is freed by files that nothing owns, and by rows that nothing reaches.
    pub unowned_bytes: u64,
    /// Files that nothing owns and that are old enough to go, and rows that nothing reaches.
    pub unowned_files: usize,
    /// References that nothing uses and nobody pinned.
    pub unused: usize,
    /// What a prune would free of unused images.
    pub unused_bytes: u64,
}

impl LocalBackend {
    /// Measures the cache, and what a prune would free of it. Writes nothing.
    ///
    /// # Errors
    /// Where the home or its file system cannot be read.
    pub async fn usage(&self) -> MicrosandboxResult<Usage> {
        let store = Arc::clone(self.store());
        let measured = blocking("measure the cache", move || {
            // Reading goes on without a guard that cannot be understood.
            let guard = guard::of_home(&store).unwrap_or_else(|error| {
                tracing::warn!("what a prune would free is shown without the guard: {error}");
                Guard::default()
            });
            // Each looks at every file: at the same time it takes half as long.
            std::thread::scope(|scope| {
                let disk = scope.spawn(|| disk_status(store.cache().root()));
                let planned = HomeSnapshot::open(&store)
                    .and_then(|mut snapshot| prune::plan(&mut snapshot, &store, guard, Scope::All));
                let disk = disk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Ok((planned?, disk?))
            })
        });
        let (PlannedPrune { plan, images }, disk) = measured.await?;
        let count = |is: fn(&ImageRecord) -> bool| images.iter().filter(|image| is(image)).count();
        let unreached: u64 = plan.unreached.iter().map(|row| row.bytes).sum();
        let unowned = unreached + plan.collect.iter().map(|file| file.bytes).sum::<u64>();
        Ok(Usage {
            available_bytes: disk.available_bytes,
            cache_bytes: disk.cache_bytes,
            capacity_bytes: disk.capacity_bytes,
            images: images.len(),
            in_use: count(|image| !image.users.is_empty()),
            pinned: count(|image| image.pinned),
            reclaimable_bytes: plan.bytes,
            uncollected: plan.uncollected,
            unowned_bytes: unowned,
            unowned_files: plan.unreached.len() + plan.collect.len(),
            unused: count(|image| image.users.is_empty() && !image.pinned),
            unused_bytes: plan.bytes.saturating_sub(unowned),
        })
    }
}
