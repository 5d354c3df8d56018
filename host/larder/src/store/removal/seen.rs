//! The files of a batch, looked at while they are claimed: step 2 of the [module above](super).

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::Outcome;
use crate::artifacts::unowned::manifest_named_by;
use crate::artifacts::{CacheDir, Entry, FileStat, Room, Rooms};
use crate::catalog::removal_set::RemovalSet;
use crate::catalog::roots;
use crate::reference::Digest;

/// The files of a batch as they were seen while claimed.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) stats: HashMap<Entry, FileStat>,
    /// The manifests that metadata files name.
    named: HashMap<Entry, Digest>,
    /// The metadata files that may name any manifest.
    unreadable: HashSet<Entry>,
}

impl Seen {
    /// Looks at every claimed file (step 2).
    pub(super) fn look(set: &RemovalSet, cache: &CacheDir, rooms: &Rooms, outcome: &mut Outcome) -> Self {
        let mut seen = Self::default();
        for file in &set.files {
            let path = || cache.path_of(&file.entry);
            match rooms.stat(&file.entry) {
                Ok(Some(stat)) => {
                    let is_new = seen.stats.insert(file.entry.clone(), stat).is_none();
                    if stat.is_dir {
                        if file.goes && is_new {
                            outcome.problems.push(format!(
                                "`{}` is a directory and not a file of the cache: left alone",
                                path().display()
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
                                    .push(format!("could not read `{}`: {error}", path().display()));
                                seen.unreadable.insert(file.entry.clone());
                            }
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    outcome.problems.push(format!("could not look at `{}`: {error}", path().display()));
                }
            }
        }
        seen
    }

    /// Returns whether metadata is needed although its reference is removed: a sandbox or snapshot uses the manifest
    /// that it names, which may differ from that of the reference. Metadata that could not be read may be needed, and
    /// is left for a later prune.
    pub(super) fn is_needed(&self, connection: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
        if self.unreadable.contains(entry) {
            return Ok(true);
        }
        self.named.get(entry).map_or(Ok(false), |digest| roots::is_used(connection, digest))
    }
}
