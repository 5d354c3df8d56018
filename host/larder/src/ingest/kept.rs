//! Complete layers of a pull that failed, kept for the next one.
//!
//! A kept layer is in `tmp/`, as work that goes on, and is collected after a day as such. Its name tells it from work that a crash
//! has left incomplete. It is moved under the exclusive lease of its entry, and moved back under the lock of the entry and a lock
//! on the file itself, which whoever collects it would have to take.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, renameat};
use rustix::io::Errno;

use crate::artifacts::plain::open_file_at;
use crate::artifacts::{CacheDir, Entry, RoomDir, stat_at};

/// The directory of work in progress.
pub(super) const TEMPORARY: &str = "tmp";

/// Returns the name of a kept entry. Work in progress has six random letters and digits instead of the word.
fn name_of(entry: &Entry) -> String {
    let (stem, suffix) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
    format!("{stem}-complete.{suffix}.part")
}

fn temporary(cache: &CacheDir) -> io::Result<OwnedFd> {
    cache.open_plain(Path::new(TEMPORARY))?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Keeps a complete entry, which is claimed, and takes its name from it.
pub(super) fn keep(cache: &CacheDir, room: &RoomDir, entry: &Entry) -> io::Result<()> {
    Ok(renameat(&room.directory, &entry.name, temporary(cache)?, name_of(entry))?)
}

/// Returns whether an entry is kept.
pub(super) fn is_kept(cache: &CacheDir, entry: &Entry) -> io::Result<bool> {
    let Some(directory) = cache.open_plain(Path::new(TEMPORARY))? else { return Ok(false) };
    Ok(stat_at(directory, name_of(entry))?.is_some_and(|stat| stat.is_file))
}

/// Gives a kept entry its name again. Returns false if it is not kept, or is being collected.
pub(super) fn restore(cache: &CacheDir, room: &RoomDir, entry: &Entry) -> io::Result<bool> {
    let (directory, name) = (temporary(cache)?, name_of(entry));
    let file = match open_file_at(&directory, name.as_ref()) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    match renameat(&directory, &name, &room.directory, &entry.name) {
        Ok(()) => Ok(true),
        // It was collected before it was locked.
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::Room;
    use crate::artifacts::work::in_temporary;
    use crate::reference::Digest;

    /// A kept layer has the name of work, gets its own name back once, and not while it is being collected.
    #[test]
    fn kept_and_restored() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for name in ["tmp", "layers"] {
            std::fs::create_dir(root.join(name)).expect("a directory");
        }
        let cache = CacheDir::new(root.to_owned(), root.to_owned());
        let rooms = cache.rooms().expect("rooms");
        let room = rooms.get(Room::Layers).expect("a room");
        let entry = Entry::named(Room::Layers, &Digest::of(b"x"));
        assert!(in_temporary(&name_of(&entry)).is_some());
        assert!(!restore(&cache, room, &entry).expect("looked"));
        std::fs::write(cache.path_of(&entry), "layer").expect("written");
        keep(&cache, room, &entry).expect("kept");
        assert!(is_kept(&cache, &entry).expect("looked") && !cache.path_of(&entry).exists());
        let collector = std::fs::File::open(root.join("tmp").join(name_of(&entry))).expect("a file");
        flock(&collector, FlockOperation::LockExclusive).expect("locked");
        assert!(!restore(&cache, room, &entry).expect("looked"));
        drop(collector);
        assert!(restore(&cache, room, &entry).expect("restored"));
        assert_eq!(std::fs::read(cache.path_of(&entry)).expect("read"), b"layer");
        assert!(!restore(&cache, room, &entry).expect("looked"));
    }
}
