//! Leases: locks on the entries of a room, across processes.
//!
//! A lease is a `flock` on `.msb-leases/<SHA-256 of the file name>.lock` beside the entry. A process that reads or
//! publishes an entry holds the lease shared until the index has the rows. A process that deletes an entry takes the
//! lease exclusive without waiting, and holds it until the file is deleted. So an entry that a process holds is never
//! deleted, and two processes never delete the same file. The lock files stay forever: a lock on a new file of the same
//! name would be a different lock.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Entry, Room, Rooms};
use crate::reference::hex;

const LEASES: &str = ".msb-leases";

/// The exclusive leases that a deletion holds. Drop releases them.
///
/// While a lease is held, no process can begin to read or publish the entry. A deletion does not wait for a process
/// that has already begun.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: HashMap<Entry, Option<OwnedFd>>,
    directories: HashMap<Room, OwnedFd>,
}

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The lease is held until the claims are dropped or the lease is released.
    Held,
    /// A process reads, publishes or deletes the entry.
    Busy,
}

impl Claims {
    /// Claims an entry, unless it is already claimed. The entry need not exist.
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

    /// Returns whether an entry is claimed.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.held.contains_key(entry)
    }

    /// Releases every claim except those that `wanted` accepts.
    pub(crate) fn release_all_but(&mut self, wanted: impl Fn(&Entry) -> bool) {
        self.held.retain(|entry, _| wanted(entry));
    }
}

/// A set of shared leases: no process deletes the entries until they are dropped.
#[derive(Debug)]
pub(crate) struct SharedLeases {
    _held: Vec<Held>,
}

impl SharedLeases {
    /// Takes the leases of these entries, and waits for processes that delete one of them. An entry need not exist,
    /// neither before nor after: the caller has to query the index again.
    ///
    /// Takes no leases on a read-only file system, where no process deletes anything.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] if `cancelled` is set while it waits.
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

/// Returns whether a process reads, publishes or deletes an entry at this moment. Creates no file: an entry without a
/// lock file was never held. An entry whose lock cannot be opened counts as free.
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

/// Returns the number of leases that may be held at once: half of the descriptors that this process may open, with an
/// upper limit that keeps a transaction short.
pub(crate) fn batch_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX) / 2).unwrap_or(usize::MAX).clamp(16, 480)
}

/// Returns the number of leases that a call may hold at once which adds to the cache and holds nobody up: half of the descriptors
/// that this process may open.
pub(crate) fn most_held() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX) / 2).unwrap_or(usize::MAX).clamp(16, 2048)
}

/// The interval between two attempts to take a lock, and between two checks for cancellation.
const POLL: Duration = Duration::from_millis(20);

/// A lock that is held until drop.
#[derive(Debug)]
pub(crate) struct Held {
    file: OwnedFd,
}

impl Held {
    /// Makes a shared lease exclusive, unless another process holds it, too. Returns whether it is exclusive. Otherwise
    /// it is shared as before, but the entry may have been deleted meanwhile.
    pub(crate) fn try_exclusive(&self, cancelled: &AtomicBool) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            // The kernel gives up the lock that it was to convert.
            Err(Errno::WOULDBLOCK) => self.share(cancelled).map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the lock shared, and waits for a process that holds it exclusively.
    pub(crate) fn share(&self, cancelled: &AtomicBool) -> io::Result<()> {
        wait(cancelled, || match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(())),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}

/// Tries to take a lock again and again until it is free.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] if it is not free and `cancelled` is set.
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

/// Takes a shared lease on an entry that is about to be read or published. Waits for a process that deletes the entry,
/// which takes as long as a batch of a removal.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] if `cancelled` is set while it waits.
pub(crate) fn hold(room: &OwnedFd, name: &str, cancelled: &AtomicBool) -> io::Result<Held> {
    let leases = open_leases(room)?;
    let held = Held { file: open_lock(&leases, lock_name(name))? };
    held.share(cancelled)?;
    Ok(held)
}

/// Takes the lock under which a reference gets other metadata. Waits for processes that read the metadata to take
/// leases on what it names: readers of microsandbox hold this lock shared meanwhile.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] if `cancelled` is set while it waits.
pub(crate) fn hold_publication(
    manifests: &OwnedFd,
    metadata: &str,
    cancelled: &AtomicBool,
) -> io::Result<Held> {
    let leases = open_leases(manifests)?;
    let name = lock_name(&format!("{}.publication", metadata.trim_end_matches(".json")));
    wait(cancelled, || try_lock_beside(&leases, &name))
}

/// The longest wait for a turn: a batch of a removal takes some hundredths of a second.
const TURN: Duration = Duration::from_secs(1);

/// The interval between two attempts to take a turn.
const TURN_POLL: Duration = Duration::from_millis(1);

/// Waits for the turn of a batch of a removal, which ends when these rooms are closed. Removals of several processes take turns:
/// otherwise each would find busy what another has claimed for a moment, and both would spare it.
///
/// A turn is an exclusive `flock` on the directory of layers. Whoever waits for it holds that of metadata, so that nobody has two
/// turns while another waits. If there is no turn to be had in time, or no lock, the batch runs without.
pub(crate) fn await_turn(rooms: &Rooms) {
    let (Some(queue), Some(turn)) = (rooms.get(Room::Manifests), rooms.get(Room::Layers)) else { return };
    let deadline = Instant::now() + TURN;
    let lock = |directory: &OwnedFd| {
        while flock(directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
            && Instant::now() < deadline
        {
            thread::sleep(TURN_POLL);
        }
    };
    lock(&queue.directory);
    lock(&turn.directory);
    // If it fails, the next one waits for longer.
    let _ = flock(&queue.directory, FlockOperation::Unlock);
}

/// Takes an exclusive lock beside the entries of a room, unless another process holds it: two processes do not make the
/// same entry at once.
pub(crate) fn try_lock_beside(room: &OwnedFd, lock_name: impl rustix::path::Arg) -> io::Result<Option<Held>> {
    try_lock_file(open_lock(room, lock_name)?)
}

/// Takes the exclusive lock of an open file or directory, unless another process holds it.
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

    /// Waiting for a lease ends when the lease is free, and when the wait is cancelled.
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

    /// Asking whether an entry is held creates no lock file, and leaves the entry free.
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
