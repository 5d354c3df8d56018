//! Deleting files that no row owns.
//!
//! [`find_unowned`] finds the files that are old enough. Their age is checked again here, under the locks of the
//! processes that could be using them:
//!
//! - an entry of a room: its exclusive lease, and another query of the index
//! - work in progress: the locks that belong to its name ([`work`]), and its own
//! - the record of a flat disk: the exclusive leases of its manifest's files, and another query of the index
//! - a flat disk: every lock of `flat/locks`, and another look at every record
//!
//! Nothing is deleted in a cache that may belong to another home as well ([`marker`](crate::artifacts::marker)).
//!
//! Files that are held are left. A lock that cannot be taken counts as held, and the report names it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::artifacts::lease::{Claim, Claims, Held, try_lock_beside, try_lock_file};
use crate::artifacts::marker::{Custody, Keeper};
use crate::artifacts::plain::{
    MAX_METADATA, measure_at, names_in, open_dir_at, open_file_at, read_at, remove_dir_at, unlink_at,
};
use crate::artifacts::unowned::{
    FLAT_BLOBS, FLAT_REFS, TEMPORARY, UnownedFile, UnownedKind, find_unowned, flat_blob, flat_ref, hex_words,
    is_old, manifest_named_by,
};
use crate::artifacts::work::{self, Work};
use crate::artifacts::{CacheDir, Entry, Room, Rooms};
use crate::catalog::owners::{self, LiveOwners};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

/// The directory of the locks for making flat disks.
const FLAT_LOCKS: &str = "flat/locks";

/// The files that were deleted.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) removed: Vec<UnownedFile>,
    /// The files that a process holds.
    pub(crate) busy: Vec<UnownedFile>,
    /// The allocated bytes that were freed in directories that still exist.
    pub(crate) partly: u64,
    pub(crate) problems: Vec<String>,
}

/// Deletes the files at these paths that no row owns. The paths are relative to the cache.
pub(crate) fn delete_unowned(
    connection: &Connection,
    cache: &CacheDir,
    now: DateTime<Utc>,
    only: &HashSet<PathBuf>,
) -> MicrosandboxResult<Collected> {
    let mut collector = Collector::new(connection, cache, now)?;
    if let Custody::NotOurs(reason) = collector.keeper.custody() {
        let problem = format!("left all files that nothing of this home owns: {reason}");
        collector.collected.problems.push(problem);
        return Ok(collector.collected);
    }
    let owned = owners::entries(connection).map_err(MicrosandboxError::db("find out what owns files"))?;
    let found = find_unowned(cache, &owned, &HashSet::new(), now);
    let wanted = found.old.into_iter().filter(|file| only.contains(&file.path));
    let (disks, others): (Vec<_>, Vec<_>) = wanted.partition(|file| file.kind == UnownedKind::FlatBlob);
    collector.collected.problems = found.problems;
    for file in others {
        let deleted = collector.delete(&file)?;
        collector.note(file, deleted);
    }
    // Disks last: the records that named them are gone by then.
    if !disks.is_empty() {
        collector.disks(disks);
    }
    Ok(collector.collected)
}

/// Deletes the unfinished work among these files. Needs no state of the index newer than `connection`, because only the
/// locks of its name protect work.
pub(crate) fn delete_work(
    connection: &Connection,
    cache: &CacheDir,
    now: DateTime<Utc>,
    files: Vec<UnownedFile>,
) -> MicrosandboxResult<Collected> {
    let mut collector = Collector::new(connection, cache, now)?;
    for file in files.into_iter().filter(is_work) {
        let deleted = collector.delete(&file)?;
        collector.note(file, deleted);
    }
    Ok(collector.collected)
}

/// Returns whether a file is unfinished work, in a directory that holds such work.
fn is_work(file: &UnownedFile) -> bool {
    let directory = file.path.parent().and_then(Path::to_str);
    let is_there = directory.is_some_and(|name| name == TEMPORARY || Room::from_name(name).is_some());
    is_there && matches!(file.kind, UnownedKind::Temporary | UnownedKind::Blob)
}

enum Deleted {
    /// The file was deleted, which freed this many allocated bytes.
    Yes(u64),
    /// The file has an owner now, is recent again, or does not exist.
    No,
    /// A process holds the file.
    Busy,
    Failed(io::Error),
    /// A directory could not be deleted completely. This many allocated bytes in it were freed.
    Partly(io::Error, u64),
}

struct Collector<'a> {
    cache: &'a CacheDir,
    keeper: Keeper,
    rooms: Rooms,
    live: LiveOwners<'a>,
    now: DateTime<Utc>,
    directories: HashMap<PathBuf, OwnedFd>,
    collected: Collected,
}

impl<'a> Collector<'a> {
    fn new(connection: &'a Connection, cache: &'a CacheDir, now: DateTime<Utc>) -> MicrosandboxResult<Self> {
        Ok(Self {
            cache,
            keeper: super::keeper(connection, cache)?,
            rooms: cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?,
            live: LiveOwners::new(connection),
            now,
            directories: HashMap::new(),
            collected: Collected::default(),
        })
    }

    fn note(&mut self, file: UnownedFile, deleted: Deleted) {
        match deleted {
            Deleted::Yes(bytes) => self.collected.removed.push(UnownedFile { bytes, ..file }),
            Deleted::Busy => self.collected.busy.push(file),
            Deleted::No => {}
            Deleted::Failed(error) => self.not_deleted(&file, &error),
            Deleted::Partly(error, bytes) => {
                self.collected.partly += bytes;
                self.not_deleted(&file, &error);
            }
        }
    }

    fn not_deleted(&mut self, file: &UnownedFile, error: &io::Error) {
        let path = self.cache.root().join(&file.path);
        self.collected.problems.push(format!("could not delete `{}`: {error}", path.display()));
    }

    /// Deletes anything except a flat disk, if it is free.
    fn delete(&mut self, file: &UnownedFile) -> MicrosandboxResult<Deleted> {
        let Some((directory, name)) = parts(&file.path) else { return Ok(Deleted::No) };
        if let Err(error) = self.open(directory) {
            return Ok(Deleted::Failed(error));
        }
        let room = directory.to_str().and_then(Room::from_name);
        match file.kind {
            UnownedKind::Artifact => match file.entry() {
                Some(entry) => self.entry(file, &entry),
                None => Ok(Deleted::No),
            },
            UnownedKind::FlatRef => self.flat_ref(file, name),
            UnownedKind::Blob | UnownedKind::Temporary => {
                let text = name.to_str().unwrap_or_default();
                let work = match room {
                    Some(_) if file.kind == UnownedKind::Blob => work::downloaded(text),
                    Some(room) => work::in_room(room, text),
                    None => work::in_temporary(text),
                };
                Ok(work.map_or(Deleted::No, |work| self.work(file, &work)))
            }
            UnownedKind::FlatBlob | UnownedKind::Foreign | UnownedKind::NotOurs => Ok(Deleted::No),
        }
    }

    /// Deletes an entry of a room under its lease, if no row owns it now.
    fn entry(&mut self, file: &UnownedFile, entry: &Entry) -> MicrosandboxResult<Deleted> {
        let mut claims = Claims::default();
        match claims.claim(&self.rooms, entry) {
            Ok(Claim::Held) => {}
            Ok(Claim::Busy) => return Ok(Deleted::Busy),
            Err(error) => return Ok(Deleted::Failed(error)),
        }
        // Metadata outlives its reference while a sandbox needs the manifest that it names.
        let named = match self.rooms.get(entry.room).filter(|_| entry.room == Room::Manifests) {
            Some(room) => match manifest_named_by(&room.directory, entry.name.as_ref()) {
                Ok(named) => named,
                Err(error) => return Ok(Deleted::Failed(error)),
            },
            None => None,
        };
        if self
            .is_needed(entry, named.as_ref())
            .map_err(MicrosandboxError::db("find out what owns a file"))?
        {
            return Ok(Deleted::No);
        }
        Ok(self.unlink_old(file))
    }

    /// Returns whether a row owns an entry, or the manifest that it names.
    fn is_needed(&mut self, entry: &Entry, named: Option<&Digest>) -> rusqlite::Result<bool> {
        match named {
            Some(digest) if self.live.own(&Entry::named(Room::Fsmeta, digest))? => Ok(true),
            _ => self.live.own(entry),
        }
    }

    /// Deletes the record of a flat disk while no process uses its manifest, even one that the index does not have yet.
    fn flat_ref(&mut self, file: &UnownedFile, name: &OsStr) -> MicrosandboxResult<Deleted> {
        let Some(manifest) = flat_ref(name) else { return Ok(Deleted::No) };
        let mut claims = Claims::default();
        for room in [Room::Fsmeta, Room::Vmdk] {
            match claims.claim(&self.rooms, &Entry::of(room, manifest)) {
                Ok(Claim::Held) => {}
                Ok(Claim::Busy) => return Ok(Deleted::Busy),
                Err(error) => return Ok(Deleted::Failed(error)),
            }
        }
        let owned = self.live.own(&Entry::of(Room::Fsmeta, manifest));
        if owned.map_err(MicrosandboxError::db("find out what owns a file"))? {
            return Ok(Deleted::No);
        }
        Ok(self.unlink_old(file))
    }

    /// Deletes work in progress under the locks of the processes that could be doing it.
    fn work(&mut self, file: &UnownedFile, work: &Work) -> Deleted {
        let mut held: Vec<Held> = Vec::new();
        for lock in &work.locks {
            match self.open(Path::new(lock.directory)) {
                // Without the directory nobody has begun such work.
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => return Deleted::Failed(error),
            }
            let Some(directory) = self.directories.get(Path::new(lock.directory)) else { continue };
            match try_lock_beside(directory, &lock.name) {
                Ok(Some(lock)) => held.push(lock),
                Ok(None) => return Deleted::Busy,
                Err(error) => return Deleted::Failed(error),
            }
        }
        let Some((directory, name)) = self.place(file) else { return Deleted::No };
        let opened = if work.is_dir {
            open_dir_at(directory, name)
        } else {
            open_file_at(directory, name).map(|file| Some(OwnedFd::from(file)))
        };
        let own = match opened {
            Ok(Some(own)) => try_lock_file(own),
            Ok(None) => return Deleted::No,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Deleted::No,
            Err(error) => return Deleted::Failed(error),
        };
        match own {
            Ok(Some(own)) => held.push(own),
            Ok(None) => return Deleted::Busy,
            Err(error) => return Deleted::Failed(error),
        }
        self.unlink_old(file)
    }

    /// Deletes the flat disks that no record names, while no process makes a flat disk.
    fn disks(&mut self, disks: Vec<UnownedFile>) {
        let locks = match self.lock_all(Path::new(FLAT_LOCKS)) {
            Ok(Some(locks)) => locks,
            Ok(None) => return self.collected.busy.extend(disks),
            Err(error) => return self.left("lock", FLAT_LOCKS, &error),
        };
        let named = match self.named_by_records() {
            Ok(named) => named,
            Err(error) => return self.left("read", FLAT_REFS, &error),
        };
        if let Err(error) = self.open(Path::new(FLAT_BLOBS)) {
            return self.left("open", FLAT_BLOBS, &error);
        }
        for file in disks {
            let artifact = file.path.file_name().and_then(flat_blob);
            let is_free = artifact.is_some_and(|artifact| !named.contains(artifact));
            let deleted = if is_free { self.unlink_old(&file) } else { Deleted::No };
            self.note(file, deleted);
        }
        drop(locks);
    }

    fn left(&mut self, action: &str, directory: &str, error: &io::Error) {
        let path = self.cache.root().join(directory);
        let problem = format!("could not {action} `{}`: {error}; flat disks are left", path.display());
        self.collected.problems.push(problem);
    }

    /// Takes every lock of a directory. Returns `None` if a process holds one of them.
    fn lock_all(&mut self, path: &Path) -> io::Result<Option<Vec<Held>>> {
        let mut held = Vec::new();
        if !self.open(path)? {
            return Ok(Some(held));
        }
        let Some(directory) = self.directories.get(path) else { return Ok(Some(held)) };
        for name in names_in(directory)? {
            let file: File = open_file_at(directory, &name)?;
            match try_lock_file(file.into())? {
                Some(lock) => held.push(lock),
                None => return Ok(None),
            }
        }
        Ok(Some(held))
    }

    /// Returns the digests that the records of flat disks name, including the records without an owner that are held.
    fn named_by_records(&mut self) -> io::Result<HashSet<String>> {
        let path = Path::new(FLAT_REFS);
        let mut named = HashSet::new();
        if self.open(path)?
            && let Some(directory) = self.directories.get(path)
        {
            for name in names_in(directory)?.iter().filter(|name| flat_ref(name).is_some()) {
                match read_at(directory, name, MAX_METADATA) {
                    Ok(text) => named.extend(hex_words(&text)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(named)
    }

    /// Deletes a file or directory, if it is still old enough. The caller holds its locks.
    ///
    /// Another home marks the cache before it holds a lease in it. So under the lease, the marker is up to date.
    fn unlink_old(&self, file: &UnownedFile) -> Deleted {
        if let Custody::NotOurs(reason) = self.keeper.custody() {
            return Deleted::Failed(io::Error::other(reason));
        }
        let Some((directory, name)) = self.place(file) else { return Deleted::No };
        match measure_at(directory, name) {
            Ok(Some(measured)) if is_old(file.kind, &measured, self.now) => {
                let is_work = file.kind == UnownedKind::Temporary;
                let was_there = match (measured.is_file, measured.is_dir && is_work) {
                    (true, _) => unlink_at(directory, name),
                    (_, true) => remove_dir_at(directory, name),
                    _ => Ok(false),
                };
                match was_there {
                    Ok(true) => Deleted::Yes(measured.bytes),
                    Ok(false) => Deleted::No,
                    Err(error) if measured.is_dir => {
                        // What cannot be measured may be all there.
                        let left = measure_at(directory, name).ok().flatten();
                        let left = left.map_or(measured.bytes, |left| left.bytes);
                        Deleted::Partly(error, measured.bytes.saturating_sub(left))
                    }
                    Err(error) => Deleted::Failed(error),
                }
            }
            Ok(_) => Deleted::No,
            Err(error) => Deleted::Failed(error),
        }
    }

    /// Opens a directory of the cache without following links. Returns whether it exists.
    fn open(&mut self, directory: &Path) -> io::Result<bool> {
        if self.directories.contains_key(directory) {
            return Ok(true);
        }
        let opened = self.cache.open_plain(directory)?;
        let exists = opened.is_some();
        self.directories.extend(opened.map(|opened| (directory.to_owned(), opened)));
        Ok(exists)
    }

    /// Returns the open directory and the name of a file.
    fn place<'f>(&self, file: &'f UnownedFile) -> Option<(&OwnedFd, &'f OsStr)> {
        let (directory, name) = parts(&file.path)?;
        self.directories.get(directory).map(|directory| (directory, name))
    }
}

fn parts(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}
