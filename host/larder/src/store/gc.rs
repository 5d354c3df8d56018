//! Deleting files that nothing owns.
//!
//! What is old enough is found by [`find_unowned`]. An entry of a room is deleted under its exclusive lease, after the
//! index was asked once more; work in progress under its own locks. What is held is left.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink_now;
use crate::artifacts::unowned::{
    UnownedFile, UnownedKind, any_locked, find_unowned, lock_if_free, manifest_named_by,
};
use crate::artifacts::{CacheDir, Entry, Room, Rooms};
use crate::catalog::owners::{self, LiveOwners};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) removed: Vec<UnownedFile>,
    /// What somebody holds.
    pub(crate) busy: Vec<UnownedFile>,
    pub(crate) problems: Vec<String>,
}

/// Deletes what nothing owns of these paths, which are relative to the cache.
pub(crate) fn delete_unowned(
    connection: &Connection,
    cache: &CacheDir,
    now: DateTime<Utc>,
    only: &HashSet<PathBuf>,
) -> MicrosandboxResult<Collected> {
    let owned = owners::entries(connection).map_err(MicrosandboxError::db("find out what owns files"))?;
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let found = find_unowned(cache, &owned, &HashSet::new(), now);
    let mut collected = Collected { problems: found.problems, ..Collected::default() };
    let flat_is_busy = any_locked(&cache.root().join("flat/locks"));
    let mut live = LiveOwners::new(connection);
    for file in found.old {
        if !only.contains(&file.path) {
            continue;
        }
        let path = cache.root().join(&file.path);
        let deleted = match file.kind {
            UnownedKind::Artifact | UnownedKind::Blob => delete_entry(&mut live, &rooms, &file)?,
            UnownedKind::FlatRef | UnownedKind::FlatBlob if flat_is_busy => Deleted::Busy,
            UnownedKind::FlatRef | UnownedKind::FlatBlob => Deleted::from(fs::remove_file(&path)),
            UnownedKind::Temporary => delete_temporary(&path),
            UnownedKind::Foreign => continue,
        };
        match deleted {
            Deleted::Yes => collected.removed.push(file),
            Deleted::Busy => collected.busy.push(file),
            Deleted::No => {}
            Deleted::Failed(error) => {
                collected.problems.push(format!("could not delete `{}`: {error}", path.display()));
            }
        }
    }
    Ok(collected)
}

enum Deleted {
    Yes,
    /// It has an owner by now, or is gone.
    No,
    /// Somebody holds it.
    Busy,
    Failed(io::Error),
}

impl From<io::Result<()>> for Deleted {
    fn from(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::No,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Deletes an entry of a room under its lease, if nothing owns it by now.
fn delete_entry(live: &mut LiveOwners<'_>, rooms: &Rooms, file: &UnownedFile) -> MicrosandboxResult<Deleted> {
    let mut parts = file.path.iter().filter_map(|part| part.to_str());
    let (Some(room), Some(name)) = (parts.next().and_then(Room::from_name), parts.next()) else {
        return Ok(Deleted::No);
    };
    let entry = Entry { room, name: name.to_owned() };
    let mut claims = Claims::default();
    match claims.claim(rooms, &entry) {
        Ok(Claim::Held) => {}
        Ok(Claim::Busy) => return Ok(Deleted::Busy),
        Err(error) => return Ok(Deleted::Failed(error)),
    }
    let owned = is_needed(live, rooms, &entry).map_err(MicrosandboxError::db("find out what owns a file"))?;
    if owned {
        return Ok(Deleted::No);
    }
    Ok(match unlink_now(rooms, &entry) {
        Ok(true) => Deleted::Yes,
        Ok(false) => Deleted::No,
        Err(error) => Deleted::Failed(error),
    })
}

/// Returns whether a row owns an entry, or, for metadata, the manifest that it names: metadata outlives its reference
/// while a sandbox needs the manifest.
fn is_needed(live: &mut LiveOwners<'_>, rooms: &Rooms, entry: &Entry) -> rusqlite::Result<bool> {
    if entry.room == Room::Manifests
        && let Some(room) = rooms.get(entry.room)
        && let Some(digest) = manifest_named_by(&room.path.join(&entry.name))
        && live.own(&Entry::named(Room::Fsmeta, &digest))?
    {
        return Ok(true);
    }
    live.own(entry)
}

/// Deletes something of `tmp/` that nobody has locked.
fn delete_temporary(path: &Path) -> Deleted {
    let download_lock = path.with_extension("download.lock");
    let locks = [path, download_lock.as_path()].map(lock_if_free);
    if locks.iter().any(Option::is_none) {
        return Deleted::Busy;
    }
    let is_dir = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    Deleted::from(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) })
}
