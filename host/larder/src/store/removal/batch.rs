//! One batch of a removal: the steps 1 to 4 of the [module above](super).

use std::collections::{HashMap, HashSet};
use std::io;

use rusqlite::Connection;

use super::{Outcome, RemoveMode, RemovedImage, SpareReason, SparedImage, Target};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink;
use crate::artifacts::{CacheDir, Entry, FileStat, Room, Rooms};
use crate::catalog::graph::DigestRow;
use crate::catalog::removal_set::{RemovalSet, SetRow, Wanted};
use crate::catalog::remove::{self, LiveRef, RefRow};
use crate::catalog::{Writer, deletions, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;

/// Rows to remove together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    targets: Vec<Target>,
    manifests: Vec<DigestRow>,
    layers: Vec<DigestRow>,
    entries: usize,
}

/// What became of a batch.
pub(super) struct BatchDone {
    pub(super) outcome: Outcome,
    /// Records of the files that are gone.
    pub(super) deleted: Vec<i64>,
}

/// A file that a committed batch has given up.
struct GivenUp {
    entry: Entry,
    stat: FileStat,
    /// Which target it is counted for.
    target: Option<usize>,
    /// The number of its record.
    record: i64,
}

/// The number of entries that removing this may have to claim.
pub(super) fn entries_of(target: &Target) -> usize {
    3 + target.row.handle.layer_count
}

/// Turns an I/O error on a lease into ours.
fn lease_error(cache: &CacheDir, entry: &Entry) -> impl FnOnce(io::Error) -> MicrosandboxError {
    let path = cache.path_of(entry);
    move |source| MicrosandboxError::Io { action: "lock the lease of", path, source }
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
        self.entries += entries;
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.manifests.is_empty() && self.layers.is_empty()
    }

    fn refs(&self) -> Vec<&RefRow> {
        self.targets.iter().map(|target| &target.row).collect()
    }

    fn set(&self, connection: &Connection, in_use: &HashSet<i64>) -> MicrosandboxResult<RemovalSet> {
        let wanted = Wanted { refs: &self.refs(), manifests: &self.manifests, layers: &self.layers };
        RemovalSet::read(connection, wanted, in_use).map_err(MicrosandboxError::db("find out what goes"))
    }

    /// Runs the batch. On an error before the commit nothing has changed.
    pub(super) fn run(mut self, writer: &mut Writer, cache: &CacheDir) -> MicrosandboxResult<BatchDone> {
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let mut outcome = Outcome::default();
        let mut claims = Claims::default();
        let set = self.claim(writer.connection(), cache, &rooms, &mut claims, &mut outcome)?;
        failpoint!("removal.claimed");
        let stats = stat_all(&set, cache, &rooms, &mut outcome);
        let files = self.commit(writer, &stats, &claims, &mut outcome)?;
        failpoint!("removal.committed");
        let mut freed = vec![0; self.targets.len()];
        let mut deleted = Vec::new();
        for file in &files {
            match unlink(&rooms, &file.entry, &file.stat.identity) {
                Ok(bytes) => {
                    deleted.push(file.record);
                    if let Some(target) = file.target {
                        freed[target] += bytes;
                    }
                    *outcome.report.bytes_reclaimed.get_or_insert(0) += bytes;
                    match file.entry.room {
                        Room::Fsmeta => outcome.report.fsmeta_removed += 1,
                        Room::Vmdk => outcome.report.vmdk_removed += 1,
                        Room::Layers | Room::Manifests => {}
                    }
                }
                Err(error) => outcome.problems.push(format!(
                    "could not delete `{}`: {error}; the next change of this home tries again",
                    cache.path_of(&file.entry).display()
                )),
            }
            failpoint!("removal.unlinked");
        }
        outcome.removed.extend(self.targets.into_iter().zip(freed).map(|(target, bytes)| RemovedImage {
            reference: target.row.handle.reference,
            manifest_digest: target.row.handle.manifest_digest,
            bytes,
        }));
        drop(claims);
        failpoint!("removal.released");
        Ok(BatchDone { outcome, deleted })
    }

    /// Step 1: claims every entry by which a live operation could show that it uses what goes, and spares the images of
    /// which one is busy. Returns what goes with the rest.
    fn claim(
        &mut self,
        connection: &Connection,
        cache: &CacheDir,
        rooms: &Rooms,
        claims: &mut Claims,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<RemovalSet> {
        let db = MicrosandboxError::db;
        loop {
            roots::refresh(connection).map_err(db("find out what is in use"))?;
            let set = self.set(connection, &HashSet::new())?;
            let mut busy = Busy::default();
            for file in &set.files {
                let claim = claims.claim(rooms, &file.entry).map_err(lease_error(cache, &file.entry))?;
                if claim == Claim::Held {
                    continue;
                }
                match file.row {
                    SetRow::Reference(id) => drop(busy.refs.insert(id)),
                    SetRow::Manifest(id) => drop(busy.manifests.insert(id)),
                    SetRow::Layer(id) => {
                        let manifests = remove::manifests_with(connection, id);
                        busy.manifests.extend(manifests.map_err(db("find out what goes"))?);
                        busy.layers.insert(id);
                    }
                }
            }
            if busy.is_empty() {
                return Ok(set);
            }
            self.spare_busy(&busy, &set, outcome);
            let left: HashSet<i64> = self.targets.iter().map(|target| target.row.id).collect();
            let wanted: HashSet<&Entry> = set
                .files
                .iter()
                .filter(|file| matches!(file.row, SetRow::Reference(id) if left.contains(&id)))
                .map(|file| &file.entry)
                .collect();
            // Layers are claimed again as far as they still go; the leases of the spared are free from here on.
            claims.release_all_but(|entry| wanted.contains(entry));
        }
    }

    /// Takes out of the batch what is busy, and whatever would have taken a busy layer with it.
    fn spare_busy(&mut self, busy: &Busy, set: &RemovalSet, outcome: &mut Outcome) {
        let going: HashSet<i64> = set.manifests.iter().copied().collect();
        let before = self.targets.len() + self.manifests.len() + self.layers.len();
        self.targets.retain(|target| {
            let row = &target.row;
            let is_busy = busy.refs.contains(&row.id)
                || (going.contains(&row.manifest) && busy.manifests.contains(&row.manifest));
            if is_busy {
                outcome.spare(row.handle.reference.clone(), SpareReason::Leased);
            }
            !is_busy
        });
        self.manifests.retain(|row| !busy.manifests.contains(&row.id));
        self.layers.retain(|row| !busy.layers.contains(&row.id));
        let rows_spared = before - (self.targets.len() + self.manifests.len() + self.layers.len());
        debug_assert!(rows_spared > 0, "a busy entry belongs to something in the batch");
    }

    /// Step 3: gives up the rows that nothing needs any longer, and records their files.
    fn commit(
        &mut self,
        writer: &mut Writer,
        stats: &HashMap<Entry, FileStat>,
        claims: &Claims,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<Vec<GivenUp>> {
        let db = MicrosandboxError::db;
        let transaction = writer.begin().map_err(db("begin a change"))?;
        roots::refresh(&transaction).map_err(db("find out what is in use"))?;
        let in_use = self.spare_changed(&transaction, outcome).map_err(db("look at the images again"))?;
        let mut set = self.set(&transaction, &in_use)?;
        // A layer that became unused only now is not claimed: its row waits for the next prune. Manifests are all
        // claimed, they are those of the batch.
        set.keep_layers(|entry| claims.holds(entry));
        let refs = self.refs();
        let gone = remove::delete(&transaction, &refs, &set).map_err(db("remove images"))?;
        let forced: Vec<_> = self
            .targets
            .iter()
            .filter(|target| target.mode == RemoveMode::Force)
            .map(|target| target.row.key())
            .collect();
        remove::forget_notes(&transaction, &refs, &forced).map_err(db("remove images"))?;
        let mut files = Vec::new();
        let mut seen = HashSet::new();
        for file in set.files.into_iter().filter(|file| file.goes) {
            let Some(&stat) = stats.get(&file.entry).filter(|stat| !stat.is_dir) else { continue };
            if !seen.insert(file.entry.clone()) {
                continue;
            }
            let record = deletions::record(&transaction, &file.entry, &stat.identity);
            let record = record.map_err(db("record the files to delete"))?;
            files.push(GivenUp { entry: file.entry, stat, target: file.counted_for, record });
        }
        failpoint!("removal.recorded");
        transaction.commit().map_err(db("commit the removal"))?;
        outcome.report.image_refs_removed += gone.refs as u32;
        outcome.report.manifests_removed += gone.manifests as u32;
        outcome.report.layers_removed += gone.layers as u32;
        Ok(files)
    }

    /// Takes out of the batch what is not as it was decided about. Returns which manifests of the rest are in use.
    fn spare_changed(
        &mut self,
        connection: &Connection,
        outcome: &mut Outcome,
    ) -> rusqlite::Result<HashSet<i64>> {
        let live = remove::live_refs(connection, self.targets.iter().map(|target| &target.row))?;
        let mut kept = Vec::with_capacity(self.targets.len());
        let mut in_use = HashSet::new();
        for target in std::mem::take(&mut self.targets) {
            // One that is gone was removed by another process: there is nothing left to do, and nothing to report.
            let Some(now) = live.get(&target.row.id) else { continue };
            match reason_to_spare(connection, &target, now)? {
                Some(reason) => outcome.spare(target.row.handle.reference, reason),
                None => {
                    in_use.extend(now.in_use.then_some(target.row.manifest));
                    kept.push(target);
                }
            }
        }
        self.targets = kept;
        Ok(in_use)
    }
}

/// Step 2: what the file system says about everything that is claimed.
fn stat_all(
    set: &RemovalSet,
    cache: &CacheDir,
    rooms: &Rooms,
    outcome: &mut Outcome,
) -> HashMap<Entry, FileStat> {
    let mut stats = HashMap::new();
    for file in &set.files {
        let path = || cache.path_of(&file.entry).display().to_string();
        match rooms.stat(&file.entry) {
            Ok(Some(stat)) => {
                let is_new = stats.insert(file.entry.clone(), stat).is_none();
                if stat.is_dir && file.goes && is_new {
                    let problem =
                        format!("`{}` is a directory and not a file of the cache: left alone", path());
                    outcome.problems.push(problem);
                }
            }
            Ok(None) => {}
            Err(error) => outcome.problems.push(format!("could not look at `{}`: {error}", path())),
        }
    }
    stats
}

fn reason_to_spare(
    connection: &Connection,
    target: &Target,
    now: &LiveRef,
) -> rusqlite::Result<Option<SpareReason>> {
    if target.row.manifest != now.manifest || target.expected.manifest_digest != now.expected.manifest_digest
    {
        return Ok(Some(SpareReason::Replaced));
    }
    if target.expected.last_used_at != now.expected.last_used_at {
        return Ok(Some(SpareReason::Used));
    }
    if now.in_use && target.mode == RemoveMode::Unused {
        return Ok(Some(SpareReason::InUse(remove::users(connection, &target.row)?)));
    }
    Ok((now.pinned && target.mode != RemoveMode::Force).then_some(SpareReason::Pinned))
}

/// What turned out to be busy: numbers of rows.
#[derive(Default)]
struct Busy {
    refs: HashSet<i64>,
    manifests: HashSet<i64>,
    layers: HashSet<i64>,
}

impl Busy {
    fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.manifests.is_empty() && self.layers.is_empty()
    }
}

impl Outcome {
    fn spare(&mut self, reference: String, reason: SpareReason) {
        // microsandbox counts here what a live operation held, and not what is in use by its rows.
        self.report.skipped_in_use += u32::from(reason == SpareReason::Leased);
        self.spared.push(SparedImage { reference, reason });
    }
}
