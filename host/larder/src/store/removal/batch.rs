//! One batch of a removal: the steps 1 to 4 of the [module above](super).

use std::collections::{HashMap, HashSet};
use std::io;

use rusqlite::Connection;

use super::super::lease::{Claim, Claims};
use super::super::{CacheDir, Entry, FileStat, Room, Rooms};
use super::{Outcome, RemoveMode, RemovedImage, SpareReason, SparedImage, Target, deletion};
use crate::catalog::change::{self, Closure, DigestRow, Doomed, LiveRef};
use crate::catalog::{Writer, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;

/// Rows to remove together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    targets: Vec<Target>,
    manifests: Vec<DigestRow>,
    layers: Vec<DigestRow>,
    entries: usize,
}

/// What became of a batch.
pub(crate) struct BatchDone {
    pub(crate) outcome: Outcome,
    /// Records of the files that are gone.
    pub(crate) deleted: Vec<i64>,
}

/// A file that goes with a batch.
struct Doom {
    entry: Entry,
    stat: FileStat,
    /// Which target it is counted for.
    target: Option<usize>,
}

/// How many entries removing this may have to claim.
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

    fn doomed(&self) -> Doomed {
        Doomed {
            refs: self.targets.iter().map(|target| target.row.clone()).collect(),
            manifests: self.manifests.clone(),
            layers: self.layers.clone(),
        }
    }

    /// Runs the batch. On an error before the commit nothing has changed.
    pub(crate) fn run(mut self, writer: &mut Writer, cache: &CacheDir) -> MicrosandboxResult<BatchDone> {
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let mut outcome = Outcome::default();
        let (claims, closure) = self.claim(writer.connection(), cache, &rooms, &mut outcome)?;
        failpoint!("removal.claimed");
        let stats = self.stat_all(&closure, cache, &rooms, &mut outcome);
        let (doom, records) = self.commit(writer, &stats, &claims, &mut outcome)?;
        failpoint!("removal.committed");
        let mut freed = vec![0; self.targets.len()];
        let mut deleted = Vec::new();
        for (doom, record) in doom.iter().zip(records) {
            match deletion::unlink(&rooms, &doom.entry, &doom.stat.identity) {
                Ok(bytes) => {
                    deleted.push(record);
                    if let Some(target) = doom.target {
                        freed[target] += bytes;
                    }
                    *outcome.report.bytes_reclaimed.get_or_insert(0) += bytes;
                    match doom.entry.room {
                        Room::Fsmeta => outcome.report.fsmeta_removed += 1,
                        Room::Vmdk => outcome.report.vmdk_removed += 1,
                        Room::Layers | Room::Manifests => {}
                    }
                }
                Err(error) => outcome.problems.push(format!(
                    "could not delete `{}`: {error}; the next change of this home tries again",
                    cache.path_of(&doom.entry).display()
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

    /// Step 1: claims all that would go, and spares the images of which something is busy.
    fn claim(
        &mut self,
        connection: &Connection,
        cache: &CacheDir,
        rooms: &Rooms,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<(Claims, Closure)> {
        let db = MicrosandboxError::db;
        let mut claims = Claims::default();
        loop {
            roots::refresh(connection).map_err(db("find out what is in use"))?;
            let closure = change::closure(connection, &self.doomed()).map_err(db("find out what goes"))?;
            let mut busy = Busy::default();
            for target in &self.targets {
                for entry in own_entries(target) {
                    if claims.claim(rooms, &entry).map_err(lease_error(cache, &entry))? == Claim::Busy {
                        busy.refs.insert(target.row.id);
                    }
                }
            }
            for manifest in &self.manifests {
                for entry in Entry::of_manifest(&manifest.digest) {
                    if claims.claim(rooms, &entry).map_err(lease_error(cache, &entry))? == Claim::Busy {
                        busy.manifests.insert(manifest.id);
                    }
                }
            }
            for (layer, _) in &closure.layers {
                let Some(entry) = Entry::of_digest(Room::Layers, &layer.digest) else { continue };
                if claims.claim(rooms, &entry).map_err(lease_error(cache, &entry))? == Claim::Busy {
                    let manifests =
                        change::manifests_with(connection, layer.id).map_err(db("find out what goes"))?;
                    busy.manifests.extend(manifests);
                    busy.layers.insert(layer.id);
                }
            }
            if busy.is_empty() {
                return Ok((claims, closure));
            }
            self.spare_busy(&busy, &closure, outcome);
            let wanted: HashSet<Entry> = self.targets.iter().flat_map(own_entries).collect();
            // Layers are claimed again as far as they still go; the leases of the spared are free from here on.
            claims.release_all_but(|entry| wanted.contains(entry));
        }
    }

    /// Takes out of the batch what is busy, and whatever would have taken a busy layer with it.
    fn spare_busy(&mut self, busy: &Busy, closure: &Closure, outcome: &mut Outcome) {
        let going: HashSet<i64> = closure.manifests.iter().map(|row| row.id).collect();
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
    ) -> MicrosandboxResult<(Vec<Doom>, Vec<i64>)> {
        let db = MicrosandboxError::db;
        let transaction = writer.begin().map_err(db("begin a change"))?;
        roots::refresh(&transaction).map_err(db("find out what is in use"))?;
        let in_use = self.spare_changed(&transaction, outcome).map_err(db("look at the images again"))?;
        let doomed = self.doomed();
        let mut closure = change::closure(&transaction, &doomed).map_err(db("find out what goes"))?;
        // A layer that became unused only now is not claimed: its row waits for the next prune. Manifests are all
        // claimed, they are those of the batch.
        closure.layers.retain(|(row, _)| {
            Entry::of_digest(Room::Layers, &row.digest).is_none_or(|entry| claims.holds(&entry))
        });
        let doom = self.files_of(&closure, &in_use, stats);
        let gone = change::delete(&transaction, &doomed.refs, &closure).map_err(db("remove images"))?;
        let forced: Vec<_> = self
            .targets
            .iter()
            .filter(|target| target.mode == RemoveMode::Force)
            .map(|target| target.row.key())
            .collect();
        change::forget_notes(&transaction, &doomed.refs, &forced).map_err(db("remove images"))?;
        let files = doom.iter().map(|doom| (&doom.entry, &doom.stat.identity));
        let records = deletion::record(&transaction, files).map_err(db("record the files to delete"))?;
        failpoint!("removal.recorded");
        transaction.commit().map_err(db("commit the removal"))?;
        outcome.report.image_refs_removed += gone.refs as u32;
        outcome.report.manifests_removed += gone.manifests as u32;
        outcome.report.layers_removed += gone.layers as u32;
        Ok((doom, records))
    }

    /// Step 2: what the file system says about everything that may go.
    fn stat_all(
        &self,
        closure: &Closure,
        cache: &CacheDir,
        rooms: &Rooms,
        outcome: &mut Outcome,
    ) -> HashMap<Entry, FileStat> {
        let layers = closure.layers.iter().filter_map(|(row, _)| Entry::of_digest(Room::Layers, &row.digest));
        let manifests = closure.manifests.iter().flat_map(|row| Entry::of_manifest(&row.digest));
        let metadata =
            self.targets.iter().filter_map(|target| target.row.parsed.as_ref().map(Entry::metadata));
        let mut stats = HashMap::new();
        for entry in layers.chain(manifests).chain(metadata) {
            let path = || cache.path_of(&entry).display().to_string();
            match rooms.stat(&entry) {
                Ok(Some(stat)) if stat.is_dir => {
                    outcome
                        .problems
                        .push(format!("`{}` is a directory and not a file of the cache: left alone", path()));
                }
                Ok(Some(stat)) => drop(stats.insert(entry, stat)),
                Ok(None) => {}
                Err(error) => outcome.problems.push(format!("could not look at `{}`: {error}", path())),
            }
        }
        stats
    }

    /// Takes out of the batch what is not as it was decided about. Says which manifests of the rest are in use.
    fn spare_changed(
        &mut self,
        connection: &Connection,
        outcome: &mut Outcome,
    ) -> rusqlite::Result<HashSet<i64>> {
        let live = change::live_refs(connection, self.targets.iter().map(|target| &target.row))?;
        let mut kept = Vec::with_capacity(self.targets.len());
        let mut in_use = HashSet::new();
        for target in std::mem::take(&mut self.targets) {
            // One that is gone was removed by somebody else: there is nothing left to do, and nothing to report.
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

    /// The files that nothing owns once the closure is gone.
    fn files_of(
        &self,
        closure: &Closure,
        in_use: &HashSet<i64>,
        stats: &HashMap<Entry, FileStat>,
    ) -> Vec<Doom> {
        let target_of: HashMap<i64, usize> =
            self.targets.iter().enumerate().map(|(index, target)| (target.row.manifest, index)).collect();
        let metadata = self.targets.iter().enumerate().filter_map(|(index, target)| {
            // The metadata of an image in use stays with its data.
            let goes = closure.metadata[index] && !in_use.contains(&target.row.manifest);
            let parsed = target.row.parsed.as_ref().filter(|_| goes)?;
            Some((Entry::metadata(parsed), Some(index)))
        });
        let manifests = closure.manifests.iter().flat_map(|row| {
            Entry::of_manifest(&row.digest).map(|entry| (entry, target_of.get(&row.id).copied()))
        });
        let layers = closure.layers.iter().filter_map(|(row, manifest)| {
            let target = manifest.and_then(|manifest| target_of.get(&manifest).copied());
            Some((Entry::of_digest(Room::Layers, &row.digest)?, target))
        });
        let mut seen = HashSet::new();
        metadata
            .chain(manifests)
            .chain(layers)
            .filter(|(entry, _)| seen.insert(entry.clone()))
            .filter_map(|(entry, target)| stats.get(&entry).map(|&stat| Doom { entry, stat, target }))
            .collect()
    }
}

/// The entries by which a live operation shows that it uses this very image.
fn own_entries(target: &Target) -> Vec<Entry> {
    let metadata = target.row.parsed.as_ref().map(Entry::metadata);
    let digest = target.row.handle.manifest_digest.as_deref().unwrap_or_default();
    metadata.into_iter().chain(Entry::of_manifest(digest)).collect()
}

fn reason_to_spare(
    connection: &Connection,
    target: &Target,
    now: &LiveRef,
) -> rusqlite::Result<Option<SpareReason>> {
    let decided_about = target.seen.as_ref();
    if target.row.manifest != now.manifest
        || decided_about.is_some_and(|seen| seen.manifest_digest != now.seen.manifest_digest)
    {
        return Ok(Some(SpareReason::Replaced));
    }
    if decided_about.is_some_and(|seen| seen.last_used_at != now.seen.last_used_at) {
        return Ok(Some(SpareReason::Used));
    }
    if now.in_use && target.mode == RemoveMode::Unused {
        return Ok(Some(SpareReason::InUse(change::users(connection, &target.row)?)));
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
