//! Deleting entries, under a lease that the caller holds.

use std::io;

use super::plain::unlink_at;
use super::{Entry, FileIdentity, Rooms, stat_at};
use crate::failpoint::failpoint;

/// Deletes a file, if it still is the one that was seen. Gives the allocated bytes that this freed: none while the
/// file has another name, and none where it was gone already.
pub(crate) fn unlink(rooms: &Rooms, entry: &Entry, seen: &FileIdentity) -> io::Result<u64> {
    failpoint!("removal.unlinking");
    let Some(room) = rooms.get(entry.room) else { return Ok(0) };
    let Some(stat) = stat_at(&room.directory, &entry.name)? else { return Ok(0) };
    if stat.identity != *seen {
        return Ok(0);
    }
    let was_there = unlink_at(&room.directory, entry.name.as_ref())?;
    Ok(if was_there && stat.links == 1 { stat.allocated } else { 0 })
}

/// Deletes a file that has no record. Returns whether there was one.
pub(crate) fn unlink_now(rooms: &Rooms, entry: &Entry) -> io::Result<bool> {
    rooms.get(entry.room).map_or(Ok(false), |room| unlink_at(&room.directory, entry.name.as_ref()))
}
