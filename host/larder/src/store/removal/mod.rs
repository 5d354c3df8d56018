//! Removing images: index first, files second. Neither a crash nor a power cut loses anything.
//!
//! Images are removed in batches, each image whole: its references, manifests, layers and files, in these steps
//! ([`batch`]):
//!
//! 1. Wait for the turn among removals of other processes. Query the index for everything that is removed with these
//!    references, and claim each of its entries ([`lease`]) without waiting. Spare an image if an entry of its own is busy. A
//!    busy layer that several images share stays. Query again without the spared images.
//! 2. Look at the files, to distinguish them from later files of the same names.
//! 3. In one transaction: check that every image is unchanged, that nothing needs it and that nothing has a
//!    [veto](Veto), delete the rows, record the decision about each image, and record the files that no row owns any
//!    longer (`larder_deletion`). The transaction is on disk when it is committed.
//! 4. Delete the files, unless the index was replaced meanwhile, and release the claims.
//! 5. Some batches later: sync the directories to disk, and remove the records in that batch's transaction, or in the one
//!    that records the end of the run.
//!
//! A crash before the commit of 3 changes nothing. A crash after it leaves records. The next change of the home, by any
//! process, deletes the files that they name, if no row owns the file again and it is the file that was seen. A claim
//! is held from step 1 to the end of step 4, so no process begins to use an entry that is about to be deleted.
//!
//! The writer is free between batches. A smaller batch has a shorter transaction.

mod batch;
mod claiming;
mod seen;
mod sparing;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use batch::Batch;
pub use sparing::{SpareReason, SparedImage};
pub(crate) use sparing::{Veto, reason_to_spare};

use super::full_disk::{self, FullDisk, Tried};
use super::gc::Collected;
use super::recovery::{self, Recovered};
use super::{Store, gc};
use crate::artifacts::unlink::Unlinked;
use crate::artifacts::{CacheDir, Room, lease};
use crate::catalog::history::RunKey;
use crate::catalog::remove::{self, ExpectedRef, RefRow};
use crate::catalog::roots;
use crate::catalog::{Writer, blocking};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImagePruneReport, RecoveredFiles};
use crate::reference::RowDigest;

/// The protection of an image from removal. A live operation always protects it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoveMode {
    /// Users and a pin protect the image.
    Unused,
    /// A pin protects the image. An image in use loses its reference, and its data stays.
    Untag,
    /// Neither protects the image. As `Untag`, and the pin is removed with the reference.
    Force,
}

/// A reference to remove.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) row: RefRow,
    pub(crate) mode: RemoveMode,
    pub(crate) expected: ExpectedRef,
    /// The reason for the removal, from the decision.
    pub(crate) reason: String,
    /// The allocated bytes that the decision expected removing it to free.
    pub(crate) bytes: u64,
}

/// A reference that was removed.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedImage {
    /// The reference.
    pub reference: String,
    /// The manifest that it named.
    pub manifest_digest: Option<String>,
    /// The allocated bytes of the files that were deleted with it.
    pub bytes: u64,
}

/// The result of a removal.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) removed: Vec<RemovedImage>,
    pub(crate) spared: Vec<SparedImage>,
    pub(crate) report: ImagePruneReport,
    /// The problems that did not stop the rest: one sentence each, with a path.
    pub(crate) problems: Vec<String>,
    /// The files of earlier removals that were deleted as well.
    pub(crate) recovered: RecoveredFiles,
    undeleted: Vec<Undeleted>,
}

/// A file that could not be deleted with its batch. It is tried again at the end of the removal.
#[derive(Debug)]
struct Undeleted {
    /// The number of its record.
    record: i64,
    room: Room,
    /// The image that the file is counted for.
    reference: Option<String>,
    /// One sentence, with the path.
    problem: String,
}

impl Outcome {
    /// Counts a deleted file.
    fn count_file(&mut self, room: Room, bytes: u64) {
        self.add_bytes(Some(bytes));
        match room {
            Room::Fsmeta => self.report.fsmeta_removed += 1,
            Room::Vmdk => self.report.vmdk_removed += 1,
            Room::Layers | Room::Manifests => {}
        }
    }

    /// Counts the files that were deleted in the second attempt, and names the others among the problems.
    fn settle(&mut self, recovered: &[Recovered]) {
        let own: HashSet<i64> = self.undeleted.iter().map(|file| file.record).collect();
        self.recovered += recovery::counted(recovered.iter().filter(|gone| !own.contains(&gone.record)));
        let recovered: HashMap<i64, Unlinked> =
            recovered.iter().map(|gone| (gone.record, gone.file)).collect();
        let mut freed: HashMap<String, u64> = HashMap::new();
        for file in std::mem::take(&mut self.undeleted) {
            match recovered.get(&file.record) {
                None => {
                    self.problems.push(format!("{}; the next change of this home tries again", file.problem));
                }
                Some(Unlinked::NotThere) => {}
                Some(&Unlinked::Freed(bytes)) => {
                    self.count_file(file.room, bytes);
                    if let Some(reference) = file.reference {
                        *freed.entry(reference).or_default() += bytes;
                    }
                }
            }
        }
        for image in &mut self.removed {
            image.bytes += freed.remove(&image.reference).unwrap_or_default();
        }
    }

    fn add(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.spared.extend(other.spared);
        self.problems.extend(other.problems);
        self.undeleted.extend(other.undeleted);
        let (total, more) = (&mut self.report, other.report);
        total.image_refs_removed += more.image_refs_removed;
        total.manifests_removed += more.manifests_removed;
        total.layers_removed += more.layers_removed;
        total.fsmeta_removed += more.fsmeta_removed;
        total.vmdk_removed += more.vmdk_removed;
        total.skipped_in_use += more.skipped_in_use;
        self.add_bytes(more.bytes_reclaimed);
    }

    fn add_collected(&mut self, collected: Collected, cache: &CacheDir) {
        for file in &collected.removed {
            match file.entry() {
                Some(entry) => self.count_file(entry.room, file.bytes),
                None => self.add_bytes(Some(file.bytes)),
            }
        }
        self.add_bytes((collected.partly > 0).then_some(collected.partly));
        for file in &collected.busy {
            self.skip("the file", &cache.root().join(&file.path).display());
        }
        self.problems.extend(collected.problems);
    }

    fn add_bytes(&mut self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            *self.report.bytes_reclaimed.get_or_insert(0) += bytes;
        }
    }
}

/// The rows to remove that no reference reaches.
#[derive(Debug, Default)]
pub(crate) struct UnreachedRows {
    pub(crate) manifests: HashSet<RowDigest>,
    pub(crate) layers: HashSet<RowDigest>,
}

/// The removal that a batch is part of.
#[derive(Clone, Copy)]
struct Decided<'a> {
    /// The run on record.
    run: RunKey,
    veto: &'a dyn Veto,
    /// Allocated bytes that were freed before it.
    freed: u64,
}

/// A removal in progress: runs batches, and removes the records of deleted files.
pub(crate) struct Remover<'a> {
    store: &'a Arc<Store>,
    /// The run that records the decisions.
    run: RunKey,
    disk: FullDisk,
    veto: Arc<dyn Veto>,
    ends: Ends,
    /// Set once enough went: what follows is left.
    has_enough: bool,
    /// Set once a batch was run.
    has_begun: bool,
    outcome: Outcome,
}

/// Says after a batch whether enough went. It may block.
pub(crate) type Enough = Arc<dyn Fn() -> bool + Send + Sync>;

/// What ends a removal before its next batch.
pub(crate) struct Ends {
    /// Set if somebody stopped it, which is an error.
    pub(crate) stop: Arc<AtomicBool>,
    /// Enough went, which is none.
    pub(crate) enough: Option<Enough>,
}

impl<'a> Remover<'a> {
    /// Makes a removal as part of a recorded run. `disk` holds what it may free if the disk is full, `veto` has the last
    /// word on each image, and `ends` ends the removal before its next batch.
    pub(crate) fn new(
        store: &'a Arc<Store>,
        run: RunKey,
        disk: FullDisk,
        veto: Arc<dyn Veto>,
        ends: Ends,
    ) -> Self {
        let outcome = Outcome::default();
        Self { store, run, disk, veto, ends, has_enough: false, has_begun: false, outcome }
    }

    fn check_stop(&self) -> MicrosandboxResult<()> {
        if self.ends.stop.load(Ordering::Relaxed) { Err(MicrosandboxError::Stopped) } else { Ok(()) }
    }

    /// Returns whether the removal ended early since enough went.
    pub(crate) fn had_enough(&self) -> bool {
        self.has_enough
    }

    /// Finds out whether enough went. Before the first batch it did not: the plan was made for what is missing.
    async fn look_for_enough(&mut self) -> MicrosandboxResult<bool> {
        if let Some(enough) = self.ends.enough.clone().filter(|_| self.has_begun && !self.has_enough) {
            self.has_enough = blocking("look whether enough went", move || Ok(enough())).await?;
        }
        self.has_begun = true;
        Ok(self.has_enough)
    }

    /// Returns whether the disk was full at any time.
    pub(crate) fn found_full_disk(&self) -> bool {
        self.disk.was_full()
    }

    /// Removes references, as many at a time as the number of leases allows.
    pub(crate) async fn remove(&mut self, targets: Vec<Target>) -> MicrosandboxResult<()> {
        let limit = lease::batch_size();
        let mut batch = Batch::default();
        for target in targets {
            let entries = batch::entries_of(&target);
            if !batch.is_empty() && batch.entries().saturating_add(entries) > limit {
                self.run(std::mem::take(&mut batch)).await?;
            }
            batch.push(target, entries);
        }
        self.run(batch).await
    }

    /// Removes those of these manifests and layers that no reference needs. Layers that only such a manifest has are
    /// removed with it.
    pub(crate) async fn remove_unreached(&mut self, rows: UnreachedRows) -> MicrosandboxResult<()> {
        if !rows.manifests.is_empty() {
            let find = |connection: &rusqlite::Connection| {
                roots::refresh(connection)?;
                remove::unreached_manifests(connection)
            };
            let mut manifests = self.ask("find unused manifests", find).await?;
            manifests.retain(|row| rows.manifests.contains(&row.digest));
            let ids: Vec<i64> = manifests.iter().map(|row| row.id).collect();
            let count = move |connection: &rusqlite::Connection| remove::layer_counts(connection, &ids);
            let layers = self.ask("count the layers of unused manifests", count).await?;
            let limit = lease::batch_size();
            let (mut chunk, mut entries) = (Vec::new(), 0);
            for row in manifests {
                let more = 2 + layers.get(&row.id).copied().unwrap_or_default();
                if !chunk.is_empty() && entries + more > limit {
                    self.run(Batch::of_manifests(std::mem::take(&mut chunk))).await?;
                    entries = 0;
                }
                chunk.push(row);
                entries += more;
            }
            self.run(Batch::of_manifests(chunk)).await?;
        }
        if !rows.layers.is_empty() {
            let mut layers = self.ask("find unused layers", remove::unreached_layers).await?;
            layers.retain(|row| rows.layers.contains(&row.digest));
            for chunk in layers.chunks(lease::batch_size()) {
                self.run(Batch::of_layers(chunk.to_vec())).await?;
            }
        }
        Ok(())
    }

    /// Deletes those of these files that no row owns. Paths are relative to the cache.
    pub(crate) async fn collect(&mut self, files: HashSet<PathBuf>) -> MicrosandboxResult<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.check_stop()?;
        let (store, now, files) = (self.store, self.store.now(), Arc::new(files));
        let collect = || {
            let files = Arc::clone(&files);
            store.write_on("collect files that nothing owns", move |writer, cache| {
                gc::delete_unowned(writer.connection(), cache, now, &files)
            })
        };
        let collected = self.disk.run(collect).await?;
        self.outcome.add_collected(collected, self.store.cache());
        Ok(())
    }

    /// Tries again to delete the files that could not be deleted. Returns the outcome, and an error if the records of the
    /// deleted files have to stay. The record of the end of the run removes the others.
    pub(crate) async fn finish(mut self) -> (Outcome, MicrosandboxResult<()>) {
        let store = self.store;
        let retry = || {
            store.write_on("delete what could not be deleted", |writer: &mut Writer, cache: &CacheDir| {
                let mut recovered = Vec::new();
                let synced = recovery::recover_before_change(writer, cache, &mut recovered);
                Ok((recovered, synced))
            })
        };
        let (recovered, synced) = match self.disk.run(retry).await {
            Ok(finished) => finished,
            Err(error) => (Vec::new(), Err(error)),
        };
        self.outcome.settle(&recovered);
        self.outcome.add_collected(self.disk.collected, store.cache());
        (self.outcome, synced)
    }

    async fn ask<T: Send + 'static>(
        &self,
        action: &'static str,
        question: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> MicrosandboxResult<T> {
        let ask = move |writer: &mut Writer, _: &_| {
            question(writer.connection()).map_err(MicrosandboxError::db(action))
        };
        self.store.write_on(action, ask).await
    }

    /// Runs a batch. If there are not enough file descriptors or disk space for it, runs it in smaller batches.
    async fn run(&mut self, batch: Batch) -> MicrosandboxResult<()> {
        let mut batches = vec![batch];
        let mut tried = Tried::default();
        let run = self.run;
        while let Some(batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            self.check_stop()?;
            if self.look_for_enough().await? {
                return Ok(());
            }
            let again = batch.clone();
            let (veto, freed) =
                (Arc::clone(&self.veto), self.outcome.report.bytes_reclaimed.unwrap_or_default());
            let outcome = self.store.write_on("remove images", move |writer, cache| {
                batch.run(writer, cache, &Decided { run, veto: &*veto, freed })
            });
            match outcome.await {
                Err(error) if batch::is_out_of_descriptors(&error) => {
                    let Some([first, second]) = again.halves() else { return Err(error) };
                    batches.extend([second, first]);
                }
                Err(error) if full_disk::is_full(&error) => {
                    if self.disk.make_room(&mut tried).await? {
                        batches.push(again);
                    } else if again.needs_every_lock() {
                        batches.push(again.sparing_what_has_no_lock());
                    } else {
                        let Some([first, second]) = again.halves() else { return Err(error) };
                        batches.extend([second, first]);
                        tried = Tried::default();
                    }
                }
                outcome => self.outcome.add(outcome?),
            }
        }
        Ok(())
    }
}
