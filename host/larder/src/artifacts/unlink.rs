//! Deleting entries, under a lease that the caller holds.

use std::io;

use super::plain::unlink_at;
use super::{Entry, FileIdentity, Rooms, stat_at};
use crate::failpoint::failpoint;

/// The result of deleting a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlinked {
    /// The file was deleted, which freed this many allocated bytes: none if it still has another name.
    Freed(u64),
    /// The file was deleted before, or another file has its name.
    NotThere,
}

/// Deletes a file, if it is still the file that was seen.
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

/// Deletes a file that has no record. Returns whether it existed.
pub(crate) fn unlink_now(rooms: &Rooms, entry: &Entry) -> io::Result<bool> {
    rooms.get(entry.room).map_or(Ok(false), |room| unlink_at(&room.directory, entry.name.as_ref()))
}
