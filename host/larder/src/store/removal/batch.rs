//! One batch of a removal: the steps 1 to 4 of the [module above](super), the first two by [`claiming`](super::claiming)
//! and [`seen`](super::seen).

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use rusqlite::Connection;
use rustix::io::Errno;

use super::seen::Seen;
use super::sparing::reason_to_spare;
use super::{Decided, Outcome, RemoveMode, RemovedImage, SpareReason, SparedImage, Target, Undeleted};
use crate::artifacts::lease::{Claims, await_turn};
use crate::artifacts::unlink::{Unlinked, unlink};
use crate::artifacts::{CacheDir, Entry, FileStat, Rooms};
use crate::catalog::graph::DigestRow;
use crate::catalog::history::{self, NewDecision, Verdict};
use crate::catalog::removal_set::{RemovalSet, Wanted};
use crate::catalog::remove::{self, RefRow};
use crate::catalog::{Writer, data_version, deletions, pins, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::store::recovery;
use crate::store::side_by_side::side_by_side;

/// A set of rows to remove together.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) targets: Vec<Target>,
    pub(super) manifests: Vec<DigestRow>,
    pub(super) layers: Vec<DigestRow>,
    entries: usize,
    /// Set if a lock that does not fit on the disk spares what it protects. Otherwise it ends the batch.
    pub(super) spares_unlockable: bool,
}

/// The number of deleted files after which their records are removed: large enough that syncing directories costs
/// little.
const FORGET_AFTER: usize = 4096;

/// A file that a committed batch released for deletion.
struct GivenUp {
    entry: Entry,
    stat: FileStat,
    /// The index of the target that the file is counted for.
    target: Option<usize>,
    /// The number of its record.
    record: i64,
}

/// Returns the number of entries that removing this target may have to claim.
pub(super) fn entries_of(target: &Target) -> usize {
    // A row may say any number.
    target.row.handle.layer_count.saturating_add(3)
}

/// Returns whether an error means that this process or system has no file descriptors left.
pub(super) fn is_out_of_descriptors(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Io { source, .. } if lacks_descriptors(source))
}

pub(super) fn lacks_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// The claims of a batch, held until this is dropped, and what goes by them.
pub(super) struct Claimed {
    pub(super) claims: Claims,
    pub(super) set: RemovalSet,
    /// The state of the index that the set was read from, or an earlier one.
    pub(super) state: i64,
}

/// The number of files from which two threads delete them in less time than one.
const WORTH_A_THREAD: usize = 64;

/// Deletes files. Returns what became of each, in their order.
fn unlink_all(rooms: &Rooms, files: &[GivenUp]) -> Vec<io::Result<Unlinked>> {
    let unlink = |file: &GivenUp| {
        let unlinked = unlink(rooms, &file.entry, &file.stat.identity);
        failpoint!("removal.unlinked");
        unlinked
    };
    let unlink_each = |files: &[GivenUp]| files.iter().map(unlink).collect::<Vec<_>>();
    if files.len() < WORTH_A_THREAD {
        return unlink_each(files);
    }
    let (first, second) = files.split_at(files.len() / 2);
    side_by_side(&[first, second], unlink_each).into_iter().flatten().collect()
}

impl Batch {
    pub(super) fn of_manifests(manifests: Vec<DigestRow>) -> Self {
        Self { manifests, ..Self::default() }
    }

    pub(super) fn of_layers(layers: Vec<DigestRow>) -> Self {
        Self { layers, ..Self::default() }
    }

    pub(super) fn push(&mut self, target: Target, entries: usize) {
        self.targets.push(target);
        self.entries = self.entries.saturating_add(entries);
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.manifests.is_empty() && self.layers.is_empty()
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.targets.len() + self.manifests.len() + self.layers.len()
    }

    /// Splits the batch into two halves. Returns `None` for a single row.
    pub(super) fn halves(mut self) -> Option<[Self; 2]> {
        if self.len() < 2 {
            return None;
        }
        let entries = self.entries / 2;
        let targets = self.targets.split_off(self.targets.len() / 2);
        let manifests = self.manifests.split_off(self.manifests.len().div_ceil(2));
        let layers = self.layers.split_off(self.layers.len().div_ceil(2));
        let spares_unlockable = self.spares_unlockable;
        let second = Self { targets, manifests, layers, entries, spares_unlockable };
        Some([Self { entries, ..self }, second])
    }

    /// Returns whether the batch ends if the disk has no room for a lock.
    pub(super) fn needs_every_lock(&self) -> bool {
        !self.spares_unlockable
    }

    /// Returns the same batch, which spares what it cannot lock.
    pub(super) fn sparing_what_has_no_lock(self) -> Self {
        Self { spares_unlockable: true, ..self }
    }

    fn refs(&self) -> Vec<&RefRow> {
        self.targets.iter().map(|target| &target.row).collect()
    }

    pub(super) fn set(
        &self,
        connection: &Connection,
        in_use: &HashSet<i64>,
    ) -> MicrosandboxResult<RemovalSet> {
        let wanted = Wanted { refs: &self.refs(), manifests: &self.manifests, layers: &self.layers };
        RemovalSet::read(connection, wanted, in_use).map_err(MicrosandboxError::db("find out what goes"))
    }

    /// Runs the batch as part of a recorded run. On an error before the commit nothing has changed.
    pub(super) fn run(
        mut self,
        writer: &mut Writer,
        cache: &CacheDir,
        decided: &Decided<'_>,
    ) -> MicrosandboxResult<Outcome> {
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let mut outcome = Outcome::default();
        await_turn(&rooms);
        let mut claimed = self.claim(writer.connection(), cache, &rooms, &mut outcome)?;
        failpoint!("removal.claimed");
        let seen = Seen::look(&claimed.set, cache, &rooms, &mut outcome);
        // Directories that cannot be synced keep their records, and stop nothing.
        if writer.gone.len() >= FORGET_AFTER && recovery::sync(&rooms).is_ok() {
            let Writer { gone, synced, .. } = writer;
            synced.append(gone);
        }
        let files = self.commit(writer, cache, decided, &mut claimed, &seen, &mut outcome)?;
        failpoint!("removal.committed");
        // What the rows of another index own stays.
        if !writer.is_current() {
            return Err(writer.replaced());
        }
        let mut freed = vec![0; self.targets.len()];
        for (file, unlinked) in files.iter().zip(unlink_all(&rooms, &files)) {
            match unlinked {
                Ok(Unlinked::NotThere) => writer.gone.push(file.record),
                Ok(Unlinked::Freed(bytes)) => {
                    writer.gone.push(file.record);
                    if let Some(target) = file.target {
                        freed[target] += bytes;
                    }
                    outcome.count_file(file.entry.room, bytes);
                }
                Err(error) => outcome.undeleted.push(Undeleted {
                    record: file.record,
                    room: file.entry.room,
                    reference: file.target.map(|target| self.targets[target].row.handle.reference.clone()),
                    problem: format!("could not delete `{}`: {error}", cache.path_of(&file.entry).display()),
                }),
            }
        }
        outcome.removed.extend(self.targets.into_iter().zip(freed).map(|(target, bytes)| RemovedImage {
            reference: target.row.handle.reference,
            manifest_digest: target.row.handle.manifest_digest,
            bytes,
        }));
        drop(claimed);
        failpoint!("removal.released");
        Ok(outcome)
    }

    /// Deletes the rows that nothing needs any longer, and records their files (step 3).
    fn commit(
        &mut self,
        writer: &mut Writer,
        cache: &CacheDir,
        decided: &Decided<'_>,
        claimed: &mut Claimed,
        seen: &Seen,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<Vec<GivenUp>> {
        let db = MicrosandboxError::db;
        let cache = recovery::name_of(cache);
        let forgotten = writer.synced.clone();
        let transaction = writer.begin()?;
        if !history::is_on_record(&transaction, decided.run).map_err(db("find the run on record"))? {
            drop(transaction);
            return Err(writer.replaced());
        }
        deletions::forget(&transaction, &forgotten).map_err(db("forget deleted files"))?;
        roots::refresh(&transaction).map_err(db("find out what is in use"))?;
        let wanted = self.targets.len();
        let in_use = self.spare_changed(&transaction, decided, outcome)?;
        let is_unchanged = self.targets.len() == wanted
            && in_use.is_empty()
            && data_version(&transaction).map_err(db("find out what goes"))? == claimed.state;
        let mut set =
            if is_unchanged { std::mem::take(&mut claimed.set) } else { self.set(&transaction, &in_use)? };
        // A layer that became unused only now is not claimed: its row waits for the next prune. Manifests are all
        // claimed, they are those of the batch.
        set.keep_layers(|entry| claimed.claims.holds(entry));
        let refs = self.refs();
        let gone = remove::delete(&transaction, &refs, &set).map_err(db("remove images"))?;
        let forced: Vec<_> = self
            .targets
            .iter()
            .filter(|target| target.mode == RemoveMode::Force)
            .map(|target| target.row.key())
            .collect();
        remove::forget_notes(&transaction, &refs, &forced).map_err(db("remove images"))?;
        history::insert_decisions(&transaction, decided.run.number, &self.decisions(outcome))
            .map_err(db("put what was decided on record"))?;
        let mut files = Vec::new();
        let mut recorded = HashSet::new();
        for file in set.files.into_iter().filter(|file| file.goes) {
            let Some(&stat) = seen.stats.get(&file.entry).filter(|stat| !stat.is_dir) else { continue };
            let is_needed = seen.is_needed(&transaction, &file.entry);
            if is_needed.map_err(db("find out what is in use"))? || !recorded.insert(file.entry.clone()) {
                continue;
            }
            let record = deletions::record(&transaction, &cache, &file.entry, &stat.identity);
            let record = record.map_err(db("record the files to delete"))?;
            files.push(GivenUp { entry: file.entry, stat, target: file.counted_for, record });
        }
        failpoint!("removal.recorded");
        transaction.commit().map_err(db("commit the removal"))?;
        writer.synced.clear();
        outcome.report.image_refs_removed += gone.refs as u32;
        outcome.report.manifests_removed += gone.manifests as u32;
        outcome.report.layers_removed += gone.layers as u32;
        Ok(files)
    }

    /// Returns the decisions about the images of the batch: the images that are still in it are removed, the spared
    /// ones stay.
    fn decisions<'a>(&'a self, outcome: &'a Outcome) -> Vec<NewDecision<'a>> {
        let removed = self.targets.iter().map(|target| NewDecision {
            key: target.row.key().to_owned(),
            manifest_digest: target.row.handle.manifest_digest.as_deref(),
            verdict: Verdict::Removed,
            reason: Cow::Borrowed(target.reason.as_str()),
            bytes: target.bytes,
        });
        let spared = outcome.spared.iter().map(|image| NewDecision {
            key: pins::key(&image.reference),
            manifest_digest: image.manifest_digest.as_deref(),
            verdict: Verdict::Spared,
            reason: Cow::Owned(image.reason.to_string()),
            bytes: 0,
        });
        removed.chain(spared).collect()
    }

    /// Removes images from the batch that are not as they were at the decision, or that have a veto. Returns the manifests
    /// of the others that are in use.
    fn spare_changed(
        &mut self,
        connection: &Connection,
        decided: &Decided<'_>,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<HashSet<i64>> {
        let db = || MicrosandboxError::db("look at the images again");
        let live =
            remove::live_refs(connection, self.targets.iter().map(|target| &target.row)).map_err(db())?;
        let mut unchanged = Vec::with_capacity(self.targets.len());
        for target in std::mem::take(&mut self.targets) {
            // One that is gone was removed by another process: there is nothing left to do, and nothing to report.
            let Some(now) = live.get(&target.row.id) else { continue };
            match reason_to_spare(connection, &target, now).map_err(db())? {
                Some(reason) => outcome.spare(&target, reason),
                None => unchanged.push((target, now)),
            }
        }
        let images: Vec<_> = unchanged.iter().map(|(target, now)| (target, *now)).collect();
        let vetoes = decided.veto.veto(connection, &images, decided.freed)?;
        let mut in_use = HashSet::new();
        for ((target, now), veto) in unchanged.into_iter().zip(vetoes) {
            match veto {
                Some(reason) => outcome.spare(&target, reason),
                None => {
                    in_use.extend(now.in_use.then_some(target.row.manifest));
                    self.targets.push(target);
                }
            }
        }
        Ok(in_use)
    }
}

impl Outcome {
    /// Counts and names an entry that belongs to no image and that a process holds.
    pub(super) fn skip(&mut self, what: &str, which: &dyn std::fmt::Display) {
        self.report.skipped_in_use += 1;
        self.problems.push(format!("{what} `{which}` is held by a live operation: left for the next prune"));
    }

    pub(super) fn spare(&mut self, target: &Target, reason: SpareReason) {
        // microsandbox counts here what a live operation held, and not what is in use by its rows.
        self.report.skipped_in_use += u32::from(reason == SpareReason::Leased);
        self.spared.push(SparedImage::of(target, reason));
    }
}
