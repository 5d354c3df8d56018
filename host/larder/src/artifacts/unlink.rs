//! Deleting entries, under a lease that the caller holds.

use std::io;

use super::plain::unlink_at;
use super::{Entry, FileIdentity, Rooms, stat_at};
use crate::failpoint::failpoint;

/// What became of a file that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlinked {
    /// It is gone, which freed so many allocated bytes: none while it has another name.
    Freed(u64),
    /// It was gone already, or another file has its name.
    NotThere,
}

/// Deletes a file, if it still is the one that was seen.
pub(crate) fn unlink(rooms: &Rooms, entry: &Entry, seen: &FileIdentity) -> io::Result<Unlinked> {
    failpoint!("removal.unlinking");
    let Some(room) = rooms.get(entry.room) else { return Ok(Unlinked::NotThere) };
    let stat = stat_at(&room.directory, &entry.name)?.filter(|stat| stat.identity == *seen);
    let Some(stat) = stat else { return Ok(Unlinked::NotThere) };
    if !unlink_at(&room.directory, entry.name.as_ref())? {
        return Ok(Unlinked::NotThere);
    }
    Ok(Unlinked::Freed(if stat.links == 1 { stat.allocated } else { 0 }))
}

/// Deletes a file that has no record. Returns whether there was one.
pub(crate) fn unlink_now(rooms: &Rooms, entry: &Entry) -> io::Result<bool> {
    rooms.get(entry.room).map_or(Ok(false), |room| unlink_at(&room.directory, entry.name.as_ref()))
}
