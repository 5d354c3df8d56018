//! Deleting entries, under a lease that the caller holds.

use std::io;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

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
    match unlinkat(&room.directory, &entry.name, AtFlags::empty()) {
        Ok(()) => Ok(if stat.links == 1 { stat.allocated } else { 0 }),
        Err(Errno::NOENT) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a file that has no record. Says whether there was one.
pub(crate) fn unlink_now(rooms: &Rooms, entry: &Entry) -> io::Result<bool> {
    let Some(room) = rooms.get(entry.room) else { return Ok(false) };
    match unlinkat(&room.directory, &entry.name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
