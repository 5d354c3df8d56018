//! Leases: who holds an entry of a room, across processes.
//!
//! A lease is a `flock` on `.msb-leases/<SHA-256 of the file name>.lock` beside the entry. Whoever reads or publishes
//! an entry holds it shared until the index has the rows; whoever deletes an entry takes it exclusive without
//! waiting, and holds it until the file is gone. So nothing that somebody holds is ever deleted, and no two delete
//! the same file. The lock files stay for ever: a lock on a file that was made anew would be another lock.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Entry, Room, Rooms};
use crate::reference::hex;

const LEASES: &str = ".msb-leases";

/// The exclusive leases that a deletion holds. Dropping them releases them.
///
/// While one is held, nobody can begin to read or publish the entry; nobody who had begun is waited for.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: HashMap<Entry, Option<OwnedFd>>,
    directories: HashMap<Room, OwnedFd>,
}

/// How a claim went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is held, until the claims are dropped or it is released.
    Held,
    /// Somebody reads, publishes or deletes the entry.
    Busy,
}

impl Claims {
    /// Claims an entry, unless it is claimed already. The entry need not exist.
    pub(crate) fn claim(&mut self, rooms: &Rooms, entry: &Entry) -> io::Result<Claim> {
        if self.held.contains_key(entry) {
            return Ok(Claim::Held);
        }
        let Some(room) = rooms.get(entry.room) else {
            // No room, no entry, and nobody who could hold it.
            self.held.insert(entry.clone(), None);
            return Ok(Claim::Held);
        };
        let leases = match self.directories.entry(entry.room) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(open_leases(&room.directory)?),
        };
        match try_exclusive(leases, &entry.name)? {
            Some(lease) => {
                self.held.insert(entry.clone(), Some(lease));
                Ok(Claim::Held)
            }
            None => Ok(Claim::Busy),
        }
    }

    /// Whether an entry is claimed.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.held.contains_key(entry)
    }

    /// Releases every claim but those that are still wanted.
    pub(crate) fn release_all_but(&mut self, wanted: impl Fn(&Entry) -> bool) {
        self.held.retain(|entry, _| wanted(entry));
    }
}

/// Shared leases: nobody deletes the entries until they are dropped.
#[derive(Debug)]
pub(crate) struct SharedLeases {
    _held: Vec<Held>,
}

impl SharedLeases {
    /// Takes the leases of these entries, waiting for whoever deletes one of them. An entry need not exist, then or
    /// afterwards: the index is to be asked once more.
    ///
    /// On a read-only file system there are none to be taken, and nobody deletes anything.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] when `cancelled` is set while it waits.
    pub(crate) fn hold<'a>(
        rooms: &Rooms,
        entries: impl IntoIterator<Item = &'a Entry>,
        cancelled: &AtomicBool,
    ) -> io::Result<Self> {
        let mut held = Vec::new();
        for entry in entries {
            let Some(room) = rooms.get(entry.room) else { continue };
            match hold(&room.directory, &entry.name, cancelled) {
                Ok(lease) => held.push(lease),
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { _held: held })
    }
}

/// Returns whether somebody reads, publishes or deletes an entry at this moment. Makes nothing: an entry without a lock
/// file was never held. One whose lock cannot be opened counts as free.
pub(crate) fn is_held(room: &OwnedFd, name: &str) -> bool {
    let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let lock = openat(room, LEASES, directory, Mode::empty())
        .and_then(|leases| openat(leases, lock_name(name), file, Mode::empty()));
    // Taken, it is released at once.
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

fn open_leases(room: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(room, LEASES, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            match mkdirat(room, LEASES, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            openat(room, LEASES, flags, Mode::empty()).map_err(Into::into)
        }
        opened => opened.map_err(Into::into),
    }
}

fn try_exclusive(leases: &OwnedFd, name: &str) -> io::Result<Option<OwnedFd>> {
    Ok(try_lock_beside(leases, lock_name(name))?.map(|held| held.file))
}

fn lock_name(entry: &str) -> String {
    hex(&Sha256::digest(entry.as_bytes())) + ".lock"
}

fn open_lock(directory: &OwnedFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(Into::into)
}

/// How many leases may be held at once: half of the descriptors that this process may open, and no more than keep a
/// transaction short.
pub(crate) fn batch_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX) / 2).unwrap_or(usize::MAX).clamp(16, 480)
}

/// How often it is looked whether a lock is free, and whether anybody waits for us.
const POLL: Duration = Duration::from_millis(20);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    file: OwnedFd,
}

impl Held {
    /// Makes a shared lease exclusive, unless another process has it as well. Returns whether it is exclusive; otherwise
    /// it is shared as before, though the entry may have gone meanwhile.
    pub(crate) fn try_exclusive(&self, cancelled: &AtomicBool) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            // The kernel gives up the lock that it was to convert.
            Err(Errno::WOULDBLOCK) => self.share(cancelled).map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it a shared lock, waiting for whoever has it exclusively.
    pub(crate) fn share(&self, cancelled: &AtomicBool) -> io::Result<()> {
        wait(cancelled, || match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(())),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}

/// Tries to take a lock until it is free.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when it is not free and `cancelled` is set.
pub(crate) fn wait<T>(
    cancelled: &AtomicBool,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    loop {
        if let Some(lock) = attempt()? {
            return Ok(lock);
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        thread::sleep(POLL);
    }
}

/// Holds an entry that is about to be read or published. Whoever deletes it is waited for: that takes as long as a
/// batch of a removal.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when `cancelled` is set while it waits.
pub(crate) fn hold(room: &OwnedFd, name: &str, cancelled: &AtomicBool) -> io::Result<Held> {
    let leases = open_leases(room)?;
    let held = Held { file: open_lock(&leases, lock_name(name))? };
    held.share(cancelled)?;
    Ok(held)
}

/// Holds the right to give a reference other metadata, while whoever reads its metadata in order to hold what that names
/// is waited for. microsandbox's readers hold it shared for that long.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when `cancelled` is set while it waits.
pub(crate) fn hold_publication(
    manifests: &OwnedFd,
    metadata: &str,
    cancelled: &AtomicBool,
) -> io::Result<Held> {
    let leases = open_leases(manifests)?;
    let name = lock_name(&format!("{}.publication", metadata.trim_end_matches(".json")));
    wait(cancelled, || try_lock_beside(&leases, &name))
}

/// Takes a lock beside the entries of a room for oneself, unless somebody has it: two do not make the same entry at
/// once.
pub(crate) fn try_lock_beside(room: &OwnedFd, lock_name: impl rustix::path::Arg) -> io::Result<Option<Held>> {
    try_lock_file(open_lock(room, lock_name)?)
}

/// Takes the lock of an open file or directory for oneself, unless somebody has it.
pub(crate) fn try_lock_file(file: OwnedFd) -> io::Result<Option<Held>> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Held { file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::open_dir;

    /// Waiting for a lease ends when it is free, and when nobody waits for the result any longer.
    #[test]
    fn waiting_can_be_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let room = open_dir(directory.path()).unwrap().unwrap();
        let leases = open_leases(&room).unwrap();
        let deletion = try_exclusive(&leases, "entry").unwrap().unwrap();
        let cancelled = AtomicBool::new(false);
        let kind = thread::scope(|scope| {
            let waiting = scope.spawn(|| hold(&room, "entry", &cancelled));
            thread::sleep(2 * POLL);
            cancelled.store(true, Ordering::Relaxed);
            waiting.join().unwrap().unwrap_err().kind()
        });
        assert_eq!(kind, io::ErrorKind::Interrupted);
        drop(deletion);
        assert!(hold(&room, "entry", &cancelled).is_ok());
    }

    /// Asking whether an entry is held makes no lock file, and leaves the entry free.
    #[test]
    fn asking_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let room = open_dir(directory.path()).unwrap().unwrap();
        assert!(!is_held(&room, "entry"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let lease = hold(&room, "entry", &AtomicBool::new(false)).unwrap();
        assert!(is_held(&room, "entry"));
        drop(lease);
        assert!(!is_held(&room, "entry"));
        assert!(try_exclusive(&open_leases(&room).unwrap(), "entry").unwrap().is_some());
    }

    /// A shared lease becomes exclusive only while it is the only one, and is shared again afterwards.
    #[test]
    fn a_lease_is_converted() {
        let directory = tempfile::tempdir().unwrap();
        let room = open_dir(directory.path()).unwrap().unwrap();
        let never = AtomicBool::new(false);
        let ours = hold(&room, "entry", &never).unwrap();
        let theirs = hold(&room, "entry", &never).unwrap();
        assert!(!ours.try_exclusive(&never).unwrap());
        drop(theirs);
        assert!(ours.try_exclusive(&never).unwrap());
        ours.share(&never).unwrap();
        hold(&room, "entry", &never).unwrap();
    }
}
