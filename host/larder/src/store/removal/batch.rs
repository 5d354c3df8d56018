//! One batch of a removal: the steps 1 to 4 of the [module above](super).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;

use rusqlite::Connection;
use rustix::io::Errno;

use super::sparing::reason_to_spare;
use super::{Decided, Outcome, RemoveMode, RemovedImage, SpareReason, SparedImage, Target, Undeleted};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::{Unlinked, unlink};
use crate::artifacts::unowned::manifest_named_by;
use crate::artifacts::{CacheDir, Entry, FileStat, Room, Rooms};
use crate::catalog::graph::DigestRow;
use crate::catalog::history::{self, NewDecision, Verdict};
use crate::catalog::removal_set::{RemovalSet, SetRow, Wanted};
use crate::catalog::remove::{self, RefRow};
use crate::catalog::{Writer, deletions, pins, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::reference::Digest;
use crate::store::full_disk::is_storage_full;
use crate::store::recovery;

/// Rows to remove together.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    targets: Vec<Target>,
    manifests: Vec<DigestRow>,
    layers: Vec<DigestRow>,
    entries: usize,
    /// Whether a lock that has no room on the disk spares what it protects, instead of ending the batch.
    spares_unlockable: bool,
}

/// After so many deleted files their records are forgotten: seldom enough that syncing directories costs little.
const FORGET_AFTER: usize = 4096;

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
    // A row may say any number.
    target.row.handle.layer_count.saturating_add(3)
}

/// Returns whether an error says that this process or system has no file descriptors left.
pub(super) fn is_out_of_descriptors(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Io { source, .. } if lacks_descriptors(source))
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
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

    /// The number of rows.
    fn len(&self) -> usize {
        self.targets.len() + self.manifests.len() + self.layers.len()
    }

    /// Splits it into two that are half as large. Absent for a single row.
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

    /// Returns whether it ends where the disk has no room for a lock.
    pub(super) fn needs_every_lock(&self) -> bool {
        !self.spares_unlockable
    }

    /// The same batch, which spares what it cannot lock.
    pub(super) fn sparing_what_has_no_lock(self) -> Self {
        Self { spares_unlockable: true, ..self }
    }

    fn refs(&self) -> Vec<&RefRow> {
        self.targets.iter().map(|target| &target.row).collect()
    }

    fn set(&self, connection: &Connection, in_use: &HashSet<i64>) -> MicrosandboxResult<RemovalSet> {
        let wanted = Wanted { refs: &self.refs(), manifests: &self.manifests, layers: &self.layers };
        RemovalSet::read(connection, wanted, in_use).map_err(MicrosandboxError::db("find out what goes"))
    }

    /// Runs the batch as part of a run on record. On an error before the commit nothing has changed.
    pub(super) fn run(
        mut self,
        writer: &mut Writer,
        cache: &CacheDir,
        decided: &Decided<'_>,
    ) -> MicrosandboxResult<Outcome> {
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let mut outcome = Outcome::default();
        let mut claims = Claims::default();
        let set = self.claim(writer.connection(), cache, &rooms, &mut claims, &mut outcome)?;
        failpoint!("removal.claimed");
        let seen = Seen::look(&set, cache, &rooms, &mut outcome);
        // Directories that cannot be synced keep their records, and stop nothing.
        if writer.gone.len() >= FORGET_AFTER && recovery::sync(&rooms).is_ok() {
            let Writer { gone, synced, .. } = writer;
            synced.append(gone);
        }
        let files = self.commit(writer, cache, decided, &seen, &claims, &mut outcome)?;
        failpoint!("removal.committed");
        let mut freed = vec![0; self.targets.len()];
        for file in &files {
            match unlink(&rooms, &file.entry, &file.stat.identity) {
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
            failpoint!("removal.unlinked");
        }
        outcome.removed.extend(self.targets.into_iter().zip(freed).map(|(target, bytes)| RemovedImage {
            reference: target.row.handle.reference,
            manifest_digest: target.row.handle.manifest_digest,
            bytes,
        }));
        drop(claims);
        failpoint!("removal.released");
        Ok(outcome)
    }

    /// Step 1: claims every entry by which a live operation could show that it uses what goes, and spares the images of
    /// which an entry of their own is busy. A busy layer that several of them share stays, and spares none of them.
    /// Returns what goes with the rest.
    ///
    /// A lease that cannot be had is busy, and named among the problems.
    ///
    /// # Errors
    /// One that [`is_out_of_descriptors`], while a smaller batch could do with fewer, and one that says that the disk is
    /// full, where room could be made.
    fn claim(
        &mut self,
        connection: &Connection,
        cache: &CacheDir,
        rooms: &Rooms,
        claims: &mut Claims,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<RemovalSet> {
        let db = MicrosandboxError::db;
        // Layers that stay, since somebody holds them.
        let mut held_elsewhere: HashSet<Entry> = HashSet::new();
        let mut named: HashSet<Entry> = HashSet::new();
        loop {
            roots::refresh(connection).map_err(db("find out what is in use"))?;
            let mut set = self.set(connection, &HashSet::new())?;
            let mut busy = Busy::default();
            for file in &set.files {
                if held_elsewhere.contains(&file.entry) {
                    continue;
                }
                match claims.claim(rooms, &file.entry) {
                    Ok(Claim::Held) => continue,
                    Ok(Claim::Busy) => {}
                    Err(source) => {
                        let path = cache.path_of(&file.entry);
                        let can_do_with_less = lacks_descriptors(&source) && self.len() > 1;
                        let can_make_room = is_storage_full(&source) && !self.spares_unlockable;
                        if can_do_with_less || can_make_room {
                            return Err(MicrosandboxError::Io { action: "lock the lease of", path, source });
                        }
                        if named.insert(file.entry.clone()) {
                            let path = path.display();
                            outcome.problems.push(format!("could not lock the lease of `{path}`: {source}"));
                        }
                    }
                }
                match file.row {
                    SetRow::Reference(id) => drop(busy.refs.insert(id)),
                    SetRow::Manifest(id) => drop(busy.manifests.insert(id)),
                    SetRow::Layer(id) => drop(busy.layers.insert(id, file.entry.clone())),
                }
            }
            if busy.is_empty() {
                let kept = set.keep_layers(|entry| claims.holds(entry));
                kept.iter().for_each(|entry| outcome.skip("the layer", &cache.path_of(entry).display()));
                return Ok(set);
            }
            // What is busy by itself first: without it, a layer that it has may not go at all.
            if busy.refs.is_empty() && busy.manifests.is_empty() {
                for (id, entry) in std::mem::take(&mut busy.layers) {
                    let manifests = remove::manifests_with(connection, id);
                    match manifests.map_err(db("find out what goes"))?.as_slice() {
                        [] if self.layers.iter().any(|row| row.id == id) => {
                            busy.layers.insert(id, entry);
                        }
                        [only] if self.has_manifest(*only) => drop(busy.manifests.insert(*only)),
                        _ => drop(held_elsewhere.insert(entry)),
                    }
                }
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

    fn has_manifest(&self, id: i64) -> bool {
        self.targets.iter().any(|target| target.row.manifest == id)
            || self.manifests.iter().any(|row| row.id == id)
    }

    /// Takes out of the batch what is busy.
    fn spare_busy(&mut self, busy: &Busy, set: &RemovalSet, outcome: &mut Outcome) {
        let going: HashSet<i64> = set.manifests.iter().copied().collect();
        self.targets.retain(|target| {
            let row = &target.row;
            let is_busy = busy.refs.contains(&row.id)
                || (going.contains(&row.manifest) && busy.manifests.contains(&row.manifest));
            if is_busy {
                outcome.spare(target, SpareReason::Leased);
            }
            !is_busy
        });
        self.manifests.retain(|row| {
            let is_busy = busy.manifests.contains(&row.id);
            if is_busy {
                outcome.skip("the manifest", &row.digest.as_str());
            }
            !is_busy
        });
        self.layers.retain(|row| {
            let is_busy = busy.layers.contains_key(&row.id);
            if is_busy {
                outcome.skip("the layer", &row.digest.as_str());
            }
            !is_busy
        });
    }

    /// Step 3: gives up the rows that nothing needs any longer, and records their files.
    fn commit(
        &mut self,
        writer: &mut Writer,
        cache: &CacheDir,
        decided: &Decided<'_>,
        seen: &Seen,
        claims: &Claims,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<Vec<GivenUp>> {
        let db = MicrosandboxError::db;
        let cache = recovery::name_of(cache);
        let forgotten = writer.synced.clone();
        let transaction = writer.begin()?;
        deletions::forget(&transaction, &forgotten).map_err(db("forget deleted files"))?;
        roots::refresh(&transaction).map_err(db("find out what is in use"))?;
        let in_use = self.spare_changed(&transaction, decided, outcome)?;
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
        history::insert_decisions(&transaction, decided.run, &self.decisions(outcome))
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

    /// What is decided about the images of the batch: those that are left go.
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

    /// Takes out of the batch what is not as it was decided about, and what stays by a veto. Returns which manifests of the
    /// rest are in use.
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

/// What is seen of the files of a batch while they are claimed.
#[derive(Default)]
struct Seen {
    stats: HashMap<Entry, FileStat>,
    /// The manifests that metadata files name.
    named: HashMap<Entry, Digest>,
    /// Metadata files that may name any manifest.
    unreadable: HashSet<Entry>,
}

impl Seen {
    /// Step 2: looks at everything that is claimed.
    fn look(set: &RemovalSet, cache: &CacheDir, rooms: &Rooms, outcome: &mut Outcome) -> Self {
        let mut seen = Self::default();
        for file in &set.files {
            let path = cache.path_of(&file.entry);
            match rooms.stat(&file.entry) {
                Ok(Some(stat)) => {
                    let is_new = seen.stats.insert(file.entry.clone(), stat).is_none();
                    if stat.is_dir {
                        if file.goes && is_new {
                            outcome.problems.push(format!(
                                "`{}` is a directory and not a file of the cache: left alone",
                                path.display()
                            ));
                        }
                    } else if let Some(room) = rooms.get(Room::Manifests)
                        && file.entry.room == Room::Manifests
                        && is_new
                    {
                        match manifest_named_by(&room.directory, file.entry.name.as_ref()) {
                            Ok(digest) => {
                                seen.named.extend(digest.map(|digest| (file.entry.clone(), digest)));
                            }
                            Err(error) => {
                                outcome
                                    .problems
                                    .push(format!("could not read `{}`: {error}", path.display()));
                                seen.unreadable.insert(file.entry.clone());
                            }
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    outcome.problems.push(format!("could not look at `{}`: {error}", path.display()));
                }
            }
        }
        seen
    }

    /// Returns whether metadata is needed although its reference goes: a sandbox or snapshot uses the manifest that it
    /// names, which need not be that of the reference. What could not be read may be; it is left for a later prune.
    fn is_needed(&self, connection: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
        if self.unreadable.contains(entry) {
            return Ok(true);
        }
        self.named.get(entry).map_or(Ok(false), |digest| roots::is_used(connection, digest))
    }
}

/// What turned out to be busy: numbers of rows.
#[derive(Default)]
struct Busy {
    refs: HashSet<i64>,
    manifests: HashSet<i64>,
    layers: HashMap<i64, Entry>,
}

impl Busy {
    fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.manifests.is_empty() && self.layers.is_empty()
    }
}

impl Outcome {
    /// Counts and names something that goes with no image and that somebody holds.
    pub(super) fn skip(&mut self, what: &str, which: &dyn std::fmt::Display) {
        self.report.skipped_in_use += 1;
        self.problems.push(format!("{what} `{which}` is held by a live operation: left for the next prune"));
    }

    fn spare(&mut self, target: &Target, reason: SpareReason) {
        // microsandbox counts here what a live operation held, and not what is in use by its rows.
        self.report.skipped_in_use += u32::from(reason == SpareReason::Leased);
        self.spared.push(SparedImage::of(target, reason));
    }
}
