//! Files that no row owns: the remains of interrupted prunes, pulls and conversions.
//!
//! The caller knows which entries rows own. A file counts as old after an hour, and in `tmp/` after a day: another
//! process may be about to give it an owner. A name that no cache makes is *foreign*: it is reported and never deleted.
//! So are the target of a symbolic link and a file of another type than its name says.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::plain::{Links, MAX_METADATA, Measured, measure_at, names_in, read_at};
use super::{CacheDir, Entry, Room, work};
use crate::reference::Digest;

/// The minimum age of a file to be deleted. A younger file may be about to get an owner.
const MIN_AGE: TimeDelta = TimeDelta::hours(1);
/// The minimum age of work in progress to be deleted. Younger work may continue.
const MIN_AGE_TEMPORARY: TimeDelta = TimeDelta::hours(24);

/// The kind of a file that no row owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnownedKind {
    /// A layer image, fsmeta image, VMDK descriptor or metadata file.
    Artifact,
    /// A downloaded layer blob.
    Blob,
    /// The record of a flat disk whose manifest no longer exists.
    FlatRef,
    /// A flat disk that no record names.
    FlatBlob,
    /// Unfinished work.
    Temporary,
    /// A file that no cache makes. It is reported and never deleted.
    Foreign,
    /// A file in a cache that may belong to another home as well. It is reported and never deleted.
    NotOurs,
}

/// A file that no row owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnownedFile {
    /// The allocated bytes that deleting it frees.
    pub bytes: u64,
    /// The kind.
    pub kind: UnownedKind,
    /// The path, relative to the cache directory.
    pub path: PathBuf,
}

impl UnownedFile {
    /// Returns the entry that has its name.
    pub(crate) fn entry(&self) -> Option<Entry> {
        let room = Room::from_name(self.path.parent()?.to_str()?)?;
        let key = room.key_of(self.path.file_name()?.to_str()?)?;
        Some(Entry::of(room, key))
    }
}

/// The unowned files that were found.
#[derive(Debug, Default)]
pub(crate) struct Unowned {
    /// The files that are old enough to be deleted.
    pub(crate) old: Vec<UnownedFile>,
    /// The files that are not old enough, or not ours to delete.
    pub(crate) left: Vec<UnownedFile>,
    /// The places that could not be read: one sentence each.
    pub(crate) problems: Vec<String>,
}

/// Finds every file of the cache that no row owns. `owned` has the entries that rows own. Flat disks of the manifests
/// in `going`, and metadata that only such a manifest keeps, count as unowned already.
pub(crate) fn find_unowned(
    cache: &CacheDir,
    owned: &HashSet<Entry>,
    going: &HashSet<Digest>,
    now: DateTime<Utc>,
) -> Unowned {
    let mut search = Search { cache, owned, going, now, links: Links::default(), found: Unowned::default() };
    for room in Room::ALL {
        search.room(room);
    }
    search.flat();
    search.temporary();
    let order = |files: &mut Vec<UnownedFile>| files.sort_by(|a, b| a.path.cmp(&b.path));
    order(&mut search.found.old);
    order(&mut search.found.left);
    search.found
}

struct Search<'a> {
    cache: &'a CacheDir,
    owned: &'a HashSet<Entry>,
    going: &'a HashSet<Digest>,
    now: DateTime<Utc>,
    links: Links,
    found: Unowned,
}

/// The directory of the records of flat disks.
pub(crate) const FLAT_REFS: &str = "flat/refs";
/// The directory of flat disks.
pub(crate) const FLAT_BLOBS: &str = "flat/blobs";
/// The directory of work in progress.
pub(crate) const TEMPORARY: &str = "tmp";

/// A directory of the cache and the names in it.
struct Listing {
    path: &'static Path,
    directory: OwnedFd,
    names: Vec<OsString>,
}

impl Search<'_> {
    fn room(&mut self, room: Room) {
        let Some(listing) = self.list(room.name()) else { return };
        for name in &listing.names {
            let text = name.to_str().unwrap_or_default();
            if text == ".msb-leases" || text.ends_with(".lock") {
                continue;
            }
            let kind = match room.key_of(text) {
                Some(key) if self.owned.contains(&Entry::of(room, key)) => continue,
                // Metadata outlives its reference while a sandbox needs the manifest.
                Some(_) if room == Room::Manifests && self.names_owned_manifest(&listing, name) => continue,
                Some(_) => UnownedKind::Artifact,
                None if room == Room::Layers && work::downloaded(text).is_some() => UnownedKind::Blob,
                None if work::in_room(room, text).is_some() => UnownedKind::Temporary,
                None => UnownedKind::Foreign,
            };
            self.add(kind, &listing, name);
        }
    }

    /// Returns whether metadata names a manifest that stays. Metadata that cannot be read may name one.
    fn names_owned_manifest(&mut self, listing: &Listing, name: &OsStr) -> bool {
        match manifest_named_by(&listing.directory, name) {
            Ok(digest) => digest.is_some_and(|digest| {
                !self.going.contains(&digest) && self.owned.contains(&Entry::named(Room::Fsmeta, &digest))
            }),
            Err(error) => {
                self.problem("read", &listing.path.join(name), &error);
                true
            }
        }
    }

    fn flat(&mut self) {
        let going: HashSet<&str> = self.going.iter().map(Digest::hex).collect();
        let mut named = HashSet::new();
        let mut all_read = true;
        if let Some(listing) = self.list(FLAT_REFS) {
            for name in &listing.names {
                match flat_ref(name) {
                    Some(manifest)
                        if !going.contains(manifest)
                            && self.owned.contains(&Entry::of(Room::Fsmeta, manifest)) =>
                    {
                        match read_at(&listing.directory, name, MAX_METADATA) {
                            Ok(text) => named.extend(hex_words(&text)),
                            Err(error) => {
                                self.problem("read", &listing.path.join(name), &error);
                                all_read = false;
                            }
                        }
                    }
                    Some(_) => self.add(UnownedKind::FlatRef, &listing, name),
                    None => self.add(UnownedKind::Foreign, &listing, name),
                }
            }
        }
        let Some(listing) = self.list(FLAT_BLOBS) else { return };
        for name in &listing.names {
            match flat_blob(name) {
                // Where a record could not be read, nobody knows what it names.
                Some(artifact) if named.contains(artifact) || !all_read => {}
                Some(_) => self.add(UnownedKind::FlatBlob, &listing, name),
                None => self.add(UnownedKind::Foreign, &listing, name),
            }
        }
    }

    fn temporary(&mut self) {
        let Some(listing) = self.list(TEMPORARY) else { return };
        for name in &listing.names {
            let text = name.to_str().unwrap_or_default();
            // A lock file is a lock by its inode: made anew, it would be another lock.
            if text.ends_with(".lock") {
                continue;
            }
            let is_work = work::in_temporary(text).is_some();
            let kind = if is_work { UnownedKind::Temporary } else { UnownedKind::Foreign };
            self.add(kind, &listing, name);
        }
    }

    fn add(&mut self, kind: UnownedKind, listing: &Listing, name: &OsStr) {
        let path = listing.path.join(name);
        match measure_at(&listing.directory, name) {
            Ok(Some(measured)) => {
                let kind = if has_shape(kind, name, &measured) { kind } else { UnownedKind::Foreign };
                let mut file = UnownedFile { path, kind, bytes: measured.bytes };
                if !is_old(kind, &measured, self.now) || kind == UnownedKind::Foreign {
                    self.found.left.push(file);
                    return;
                }
                if let Some(stat) = measured.linked {
                    file.bytes = self.links.count(&stat);
                }
                self.found.old.push(file);
            }
            // Gone meanwhile: somebody else's work.
            Ok(None) => {}
            Err(error) => self.problem("look at", &path, &error),
        }
    }

    /// Lists a directory. Reports anything else of its name, a symbolic link to a directory included, as foreign.
    fn list(&mut self, path: &'static str) -> Option<Listing> {
        let path = Path::new(path);
        let opened = self.cache.open_plain(path).and_then(|directory| {
            let Some(directory) = directory else { return Ok(None) };
            let names = names_in(&directory)?;
            Ok(Some(Listing { path, directory, names }))
        });
        match opened {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let (path, kind) = (path.to_owned(), UnownedKind::Foreign);
                self.found.left.push(UnownedFile { path, kind, bytes: 0 });
                None
            }
            Err(error) => {
                self.problem("read", path, &error);
                None
            }
        }
    }

    fn problem(&mut self, action: &str, path: &Path, error: &io::Error) {
        let path = self.cache.root().join(path);
        self.found.problems.push(format!("could not {action} `{}`: {error}", path.display()));
    }
}

/// Returns whether a file has the type that its name says: file or directory.
fn has_shape(kind: UnownedKind, name: &OsStr, measured: &Measured) -> bool {
    let work = name.to_str().and_then(work::in_temporary).filter(|_| kind == UnownedKind::Temporary);
    if work.is_some_and(|work| work.is_dir) { measured.is_dir } else { measured.is_file }
}

/// Returns whether a file is old enough to be deleted.
pub(crate) fn is_old(kind: UnownedKind, measured: &Measured, now: DateTime<Utc>) -> bool {
    let min_age = match kind {
        UnownedKind::Blob | UnownedKind::Temporary => MIN_AGE_TEMPORARY,
        _ => MIN_AGE,
    };
    measured.modified.checked_add_signed(min_age).is_some_and(|until| until <= now)
}

/// Returns the manifest's hex digits in the name of a flat disk's record.
pub(crate) fn flat_ref(name: &OsStr) -> Option<&str> {
    digits(name.to_str()?.strip_prefix("sha256_")?.strip_suffix(".json")?)
}

/// Returns the hex digits in the name of a flat disk.
pub(crate) fn flat_blob(name: &OsStr) -> Option<&str> {
    digits(name.to_str()?.strip_prefix("sha256_")?.strip_suffix(".raw")?)
}

fn digits(text: &str) -> Option<&str> {
    (text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(text)
}

/// Reads the digest of the manifest that a metadata file names. Returns `None` if there is no such file, or if it
/// cannot be metadata.
///
/// # Errors
/// Fails if the file cannot be read, because it may name any manifest.
pub(crate) fn manifest_named_by(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Digest>> {
    #[derive(Deserialize)]
    struct Metadata {
        manifest_digest: String,
    }
    let text = match read_at(directory, name, MAX_METADATA) {
        Ok(text) => text,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => {
                    Ok(None)
                }
                _ => Err(error),
            };
        }
    };
    let metadata = serde_json::from_slice::<Metadata>(&text).ok();
    Ok(metadata.and_then(|metadata| metadata.manifest_digest.parse().ok()))
}

/// Returns every word of 64 hex digits in a text.
pub(crate) fn hex_words(text: &[u8]) -> impl Iterator<Item = String> + '_ {
    text.split(|byte| !byte.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .map(|word| String::from_utf8_lossy(word).into_owned())
}
