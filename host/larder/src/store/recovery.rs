//! Finishing deletions: deletes the files that an interrupted removal left, and removes the records of deleted files.
//!
//! A record identifies a file and its cache. A newer file of the same name is not deleted, and a record stays while
//! its cache does not exist. A record is removed when the directory without the file is on disk.

use std::collections::HashSet;

use super::side_by_side::side_by_side;
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::{Unlinked, unlink};
use crate::artifacts::{CacheDir, RoomDir, Rooms};
use crate::catalog::owners::LiveOwners;
use crate::catalog::{Writer, deletions};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::records::RecoveredFiles;

/// Returns the name of the cache in records: its directory without symbolic links.
pub(super) fn name_of(cache: &CacheDir) -> String {
    let root = cache.root();
    root.canonicalize().unwrap_or_else(|_| root.to_owned()).to_string_lossy().into_owned()
}

/// Syncs the directories to disk, all at once: each waits for the disk. Afterwards the records of deleted files may be
/// removed.
pub(super) fn sync(rooms: &Rooms) -> MicrosandboxResult<()> {
    let sync = |room: &RoomDir| room.sync().map_err(MicrosandboxError::io("write to disk", &room.path));
    let rooms: Vec<&RoomDir> = rooms.iter().map(|(_, room)| room).collect();
    side_by_side(&rooms, sync).into_iter().collect::<MicrosandboxResult<()>>()?;
    failpoint!("removal.synced");
    Ok(())
}

/// Removes the records of deleted files, in a transaction of its own.
fn forget(writer: &mut Writer, rooms: &Rooms) -> MicrosandboxResult<()> {
    if writer.gone.is_empty() {
        return Ok(());
    }
    sync(rooms)?;
    let gone = std::mem::take(&mut writer.gone);
    let action = "forget deleted files";
    let forgotten = writer.change(action, |connection| {
        deletions::forget(connection, &gone).map_err(MicrosandboxError::db(action))
    });
    if forgotten.is_err() {
        writer.gone = gone;
    }
    forgotten?;
    failpoint!("removal.forgotten");
    Ok(())
}

/// The result for a file that a record named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recovered {
    /// The number of its record.
    pub(super) record: i64,
    pub(super) file: Unlinked,
}

/// Counts the files that were deleted.
pub(super) fn counted<'a>(recovered: impl IntoIterator<Item = &'a Recovered>) -> RecoveredFiles {
    let mut count = RecoveredFiles::default();
    for gone in recovered {
        if let Unlinked::Freed(bytes) = gone.file {
            count += RecoveredFiles { bytes, files: 1 };
        }
    }
    count
}

/// Deletes the files in the records of this process and of others, and removes the records. Notes what it deleted.
pub(super) fn recover(
    writer: &mut Writer,
    cache: &CacheDir,
    recovered: &mut Vec<Recovered>,
) -> MicrosandboxResult<()> {
    match delete_recorded(writer, cache, recovered)? {
        Some(rooms) => forget(writer, &rooms),
        None => Ok(()),
    }
}

/// Does the same, and leaves the records to the next change, which removes those that the writer has as synced.
pub(super) fn recover_before_change(
    writer: &mut Writer,
    cache: &CacheDir,
    recovered: &mut Vec<Recovered>,
) -> MicrosandboxResult<()> {
    let rooms = delete_recorded(writer, cache, recovered)?;
    if let Some(rooms) = rooms.filter(|_| !writer.gone.is_empty()) {
        sync(&rooms)?;
        writer.synced = std::mem::take(&mut writer.gone);
    }
    Ok(())
}

/// Deletes the files in the records of this process and of others, and notes what it deleted. Returns the rooms whose names
/// are to be synced, if there were records.
///
/// Leaves a record whose entry is held: its removal is still in progress, or the entry is being published again. Also
/// leaves a record whose directory does not exist, and one whose file cannot be deleted.
fn delete_recorded(
    writer: &mut Writer,
    cache: &CacheDir,
    recovered: &mut Vec<Recovered>,
) -> MicrosandboxResult<Option<Rooms>> {
    let db = MicrosandboxError::db;
    let Writer { gone, synced, .. } = &mut *writer;
    gone.append(synced);
    let records =
        deletions::pending(writer.connection(), &name_of(cache)).map_err(db("read the files to delete"))?;
    if records.is_empty() {
        writer.gone.clear();
        return Ok(None);
    }
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let known: HashSet<i64> = writer.gone.iter().copied().collect();
    let mut owners = LiveOwners::new(writer.connection());
    let mut done = Vec::new();
    for record in records.into_iter().filter(|record| !known.contains(&record.id)) {
        // A record that names no entry was not made by this library: there is nothing that it could delete.
        let Some(entry) = &record.entry else {
            done.push(record.id);
            continue;
        };
        if rooms.get(entry.room).is_none() {
            continue;
        }
        let mut claims = Claims::default();
        match claims.claim(&rooms, entry) {
            Ok(Claim::Held) => {}
            Ok(Claim::Busy) => continue,
            // A lease that cannot be had may be held: a later change tries again.
            Err(error) => {
                tracing::warn!("could not lock the lease of `{}`: {error}", cache.path_of(entry).display());
                continue;
            }
        }
        if !owners.own(entry).map_err(db("look for the owner of a file"))? {
            match unlink(&rooms, entry, &record.file) {
                Ok(file) => recovered.push(Recovered { record: record.id, file }),
                Err(error) => {
                    tracing::warn!("could not delete `{}`: {error}", cache.path_of(entry).display());
                    continue;
                }
            }
        }
        done.push(record.id);
    }
    writer.gone.extend(done);
    Ok(Some(rooms))
}
