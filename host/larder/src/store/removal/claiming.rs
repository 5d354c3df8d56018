//! Claiming the files of a batch without waiting: step 1 of the [module above](super).

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::batch::{Batch, Claimed, lacks_descriptors};
use super::{Outcome, SpareReason};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::{CacheDir, Entry, Rooms};
use crate::catalog::removal_set::{RemovalSet, SetRow};
use crate::catalog::{data_version, remove, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::store::full_disk::is_storage_full;

impl Batch {
    /// Claims every entry whose lease a live operation would hold while it uses one of the rows (step 1). Spares an
    /// image if an entry of its own is busy. A busy layer that several images share stays, and spares none of them.
    /// Returns the claims, and the rows and files to remove.
    ///
    /// A lease that cannot be taken counts as busy, and is named among the problems.
    ///
    /// # Errors
    /// An error that [`is_out_of_descriptors`], if a smaller batch could succeed with fewer, and an error that the disk
    /// is full, if room could be made.
    pub(super) fn claim(
        &mut self,
        connection: &Connection,
        cache: &CacheDir,
        rooms: &Rooms,
        outcome: &mut Outcome,
    ) -> MicrosandboxResult<Claimed> {
        let db = MicrosandboxError::db;
        let mut claims = Claims::default();
        // Layers that stay, since somebody holds them.
        let mut held_elsewhere: HashSet<Entry> = HashSet::new();
        let mut named: HashSet<Entry> = HashSet::new();
        loop {
            let state = data_version(connection).map_err(db("find out what goes"))?;
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
                return Ok(Claimed { claims, set, state });
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

    /// Removes busy rows from the batch.
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
}

/// The numbers of the rows that are busy.
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
