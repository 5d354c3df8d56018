//! Files that no row owns: what interrupted prunes, pulls and conversions left behind.
//!
//! The caller knows which entries rows own. Nothing younger than an hour counts as old, and nothing of `tmp/` younger
//! than a day: another process may be about to give it an owner. What does not have the name of something that a
//! cache makes is *foreign*: reported, never deleted.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{CacheDir, Entry, Room};
use crate::reference::Digest;

/// Younger than this, a file may be about to get an owner.
const MIN_AGE: TimeDelta = TimeDelta::hours(1);
/// Younger than this, work in progress may go on.
const MIN_AGE_TEMPORARY: TimeDelta = TimeDelta::hours(24);

/// What a file is that nothing owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnownedKind {
    /// A layer image, fsmeta image, VMDK descriptor or metadata file.
    Artifact,
    /// A downloaded layer blob.
    Blob,
    /// A flat disk's record whose manifest is gone.
    FlatRef,
    /// A flat disk that no record names.
    FlatBlob,
    /// Work that was begun and not finished.
    Temporary,
    /// Something that no cache makes: reported, never deleted.
    Foreign,
}

/// A file that nothing owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnownedFile {
    /// Allocated bytes that deleting it frees.
    pub bytes: u64,
    /// What it is.
    pub kind: UnownedKind,
    /// Where it lies, relative to the cache directory.
    pub path: PathBuf,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Unowned {
    /// Old enough to be deleted.
    pub(crate) old: Vec<UnownedFile>,
    /// Not old enough, or not ours to delete.
    pub(crate) left: Vec<UnownedFile>,
    /// What could not be looked at: one sentence each.
    pub(crate) problems: Vec<String>,
}

/// Finds every file of the cache that nothing owns. `owned` has the entries that rows own; flat disks of the manifests
/// in `going`, and metadata that names one of them and has no reference, count as unowned already.
pub(crate) fn find_unowned(
    cache: &CacheDir,
    owned: &HashSet<Entry>,
    going: &HashSet<Digest>,
    now: DateTime<Utc>,
) -> Unowned {
    let mut search = Search { cache, owned, going, now, found: Unowned::default() };
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
    found: Unowned,
}

impl Search<'_> {
    fn room(&mut self, room: Room) {
        for (name, path) in self.entries(Path::new(room.name())) {
            if name == ".msb-leases" || name.ends_with(".lock") {
                continue;
            }
            let kind = match room.key_of(&name) {
                Some(key) if self.owned.contains(&Entry::of(room, key)) => continue,
                // Metadata outlives its reference while a sandbox needs the manifest.
                Some(_) if room == Room::Manifests && self.names_owned_manifest(&path) => continue,
                Some(_) => UnownedKind::Artifact,
                None if room == Room::Layers && name.ends_with(".tar.gz") => UnownedKind::Blob,
                None if name.ends_with(".part") => UnownedKind::Temporary,
                None => UnownedKind::Foreign,
            };
            self.add(kind, path);
        }
    }

    fn names_owned_manifest(&self, path: &Path) -> bool {
        manifest_named_by(&self.cache.root().join(path)).is_some_and(|digest| {
            !self.going.contains(&digest) && self.owned.contains(&Entry::named(Room::Fsmeta, &digest))
        })
    }

    fn flat(&mut self) {
        let going: HashSet<&str> = self.going.iter().map(Digest::hex).collect();
        let mut named = HashSet::new();
        let mut all_read = true;
        for (name, path) in self.entries(Path::new("flat/refs")) {
            let manifest = name.strip_prefix("sha256_").and_then(|rest| rest.strip_suffix(".json"));
            match manifest {
                Some(manifest)
                    if !going.contains(manifest)
                        && self.owned.contains(&Entry::of(Room::Fsmeta, manifest)) =>
                {
                    match self.read(&path) {
                        Some(text) => named.extend(hex_words(&text)),
                        None => all_read = false,
                    }
                }
                Some(_) => self.add(UnownedKind::FlatRef, path),
                None => self.add(UnownedKind::Foreign, path),
            }
        }
        for (name, path) in self.entries(Path::new("flat/blobs")) {
            match name.strip_prefix("sha256_").and_then(|rest| rest.strip_suffix(".raw")) {
                // Where a record could not be read, nobody knows what it names.
                Some(artifact) if named.contains(artifact) || !all_read => {}
                Some(_) => self.add(UnownedKind::FlatBlob, path),
                None => self.add(UnownedKind::Foreign, path),
            }
        }
    }

    fn temporary(&mut self) {
        for (name, path) in self.entries(Path::new("tmp")) {
            // A lock file is a lock by its inode: made anew, it would be another lock.
            if !name.ends_with(".lock") {
                self.add(UnownedKind::Temporary, path);
            }
        }
    }

    fn add(&mut self, kind: UnownedKind, path: PathBuf) {
        let min_age = match kind {
            UnownedKind::Blob | UnownedKind::Temporary => MIN_AGE_TEMPORARY,
            _ => MIN_AGE,
        };
        match measure(&self.cache.root().join(&path)) {
            Ok(size) => {
                let expected = size.is_file || kind == UnownedKind::Temporary;
                let kind = if expected { kind } else { UnownedKind::Foreign };
                let is_old = size.modified.checked_add_signed(min_age).is_some_and(|until| until <= self.now);
                let file = UnownedFile { path, kind, bytes: size.bytes };
                let deletable = is_old && kind != UnownedKind::Foreign;
                if deletable { self.found.old.push(file) } else { self.found.left.push(file) }
            }
            // Gone meanwhile: somebody else's work.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.problem("look at", &path, &error),
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<(String, PathBuf)> {
        let read = || -> io::Result<Vec<(String, PathBuf)>> {
            let entries = fs::read_dir(self.cache.root().join(directory))?;
            entries
                .map(|entry| {
                    let name = entry?.file_name();
                    Ok((name.to_string_lossy().into_owned(), directory.join(name)))
                })
                .collect()
        };
        match read() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.problem("read", directory, &error);
                Vec::new()
            }
        }
    }

    fn read(&mut self, path: &Path) -> Option<String> {
        match fs::read(self.cache.root().join(path)) {
            Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
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

/// Reads the digest of the manifest that a metadata file names.
pub(crate) fn manifest_named_by(metadata: &Path) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Metadata {
        manifest_digest: String,
    }
    let text = fs::read(metadata).ok()?;
    serde_json::from_slice::<Metadata>(&text).ok()?.manifest_digest.parse().ok()
}

/// Every word of 64 hex digits in a text.
fn hex_words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .map(str::to_owned)
}

struct Size {
    bytes: u64,
    modified: DateTime<Utc>,
    is_file: bool,
}

/// The allocated bytes of a file or of all files of a directory, hard links aside, and when the last of it was
/// modified.
fn measure(path: &Path) -> io::Result<Size> {
    let metadata = fs::symlink_metadata(path)?;
    let modified = DateTime::from_timestamp(metadata.mtime(), metadata.mtime_nsec() as u32)
        .unwrap_or(DateTime::<Utc>::MAX_UTC);
    let own =
        if metadata.is_dir() || metadata.nlink() == 1 { metadata.blocks().saturating_mul(512) } else { 0 };
    let mut size = Size { bytes: own, modified, is_file: metadata.is_file() };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let inner = measure(&entry?.path())?;
            size.bytes += inner.bytes;
            size.modified = size.modified.max(inner.modified);
        }
    }
    Ok(size)
}

/// Locks a file or directory for as long as the result lives; nothing to lock where it cannot be opened. Absent
/// where somebody has locked it.
pub(crate) fn lock_if_free(path: &Path) -> Option<Option<fs::File>> {
    match fs::File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Some(file)),
        Err(_) => Some(None),
    }
}

/// Whether somebody has locked a file of this directory.
pub(crate) fn any_locked(directory: &Path) -> bool {
    fs::read_dir(directory)
        .is_ok_and(|entries| entries.flatten().any(|entry| lock_if_free(&entry.path()).is_none()))
}
