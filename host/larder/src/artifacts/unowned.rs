//! Files that nothing owns: what interrupted prunes, pulls and conversions left behind.
//!
//! Nothing younger than an hour is touched, and nothing of `tmp/` younger than a day: somebody may be about to give
//! it an owner. An entry of a room is deleted under its exclusive lease, after asking the index once more. What does
//! not have the name of something that a cache makes is reported, never deleted.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::lease::{Claim, Claims};
use super::removal::{is_owned, metadata_keys, unlink_now};
use super::{CacheDir, Entry, Room, Rooms};
use crate::error::{MicrosandboxError, MicrosandboxResult};

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

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) removed: Vec<UnownedFile>,
    /// What somebody holds.
    pub(crate) busy: Vec<UnownedFile>,
    pub(crate) problems: Vec<String>,
}

/// What owns files: the hex digits of digests and metadata names.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub(crate) layers: HashSet<String>,
    pub(crate) manifests: HashSet<String>,
    pub(crate) metadata: HashSet<String>,
    /// Manifests whose flat disks stay: those that are not about to go.
    pub(crate) flat: HashSet<String>,
}

impl Owners {
    /// What the index says now.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let hex = |query: &str| -> rusqlite::Result<HashSet<String>> {
            let mut statement = connection.prepare_cached(query)?;
            let digests = statement.query_map([], |row| row.get::<_, String>(0))?;
            digests.map(|digest| digest.map(|text| text.trim_start_matches("sha256:").to_owned())).collect()
        };
        let manifests = hex("SELECT digest FROM main.manifest")?;
        Ok(Self {
            layers: hex("SELECT diff_id FROM main.layer")?,
            metadata: metadata_keys(connection)?,
            flat: manifests.clone(),
            manifests,
        })
    }

    fn owns(&self, room: Room, key: &str) -> bool {
        match room {
            Room::Layers => self.layers.contains(key),
            Room::Fsmeta | Room::Vmdk => self.manifests.contains(key),
            Room::Manifests => self.metadata.contains(key),
        }
    }
}

/// Finds every file of the cache that nothing owns.
pub(crate) fn find_unowned(cache: &CacheDir, owners: &Owners, now: DateTime<Utc>) -> Unowned {
    let mut search = Search { cache, now, found: Unowned::default() };
    for room in Room::ALL {
        search.room(room, owners);
    }
    search.flat(owners);
    search.temporary();
    let order = |files: &mut Vec<UnownedFile>| files.sort_by(|a, b| a.path.cmp(&b.path));
    order(&mut search.found.old);
    order(&mut search.found.left);
    search.found
}

struct Search<'a> {
    cache: &'a CacheDir,
    now: DateTime<Utc>,
    found: Unowned,
}

impl Search<'_> {
    fn room(&mut self, room: Room, owners: &Owners) {
        for (name, path) in self.entries(Path::new(room.name())) {
            if name == ".msb-leases" || name.ends_with(".lock") {
                continue;
            }
            let kind = match room.key_of(&name) {
                Some(key) if owners.owns(room, key) => continue,
                // Metadata outlives its reference while a sandbox needs the manifest.
                Some(_) if room == Room::Manifests && self.names_live_manifest(&path, owners) => continue,
                Some(_) => UnownedKind::Artifact,
                None if room == Room::Layers && name.ends_with(".tar.gz") => UnownedKind::Blob,
                None if name.ends_with(".part") => UnownedKind::Temporary,
                None => UnownedKind::Foreign,
            };
            self.add(kind, path);
        }
    }

    fn names_live_manifest(&self, path: &Path, owners: &Owners) -> bool {
        manifest_named_by(&self.cache.root().join(path))
            .is_some_and(|digest| owners.manifests.contains(digest.trim_start_matches("sha256:")))
    }

    fn flat(&mut self, owners: &Owners) {
        let mut named = HashSet::new();
        let mut all_read = true;
        for (name, path) in self.entries(Path::new("flat/refs")) {
            let manifest = name.strip_prefix("sha256_").and_then(|rest| rest.strip_suffix(".json"));
            match manifest {
                Some(manifest) if owners.flat.contains(manifest) => match self.read(&path) {
                    Some(text) => named.extend(hex_words(&text)),
                    None => all_read = false,
                },
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

/// The digest of the manifest that a metadata file names.
fn manifest_named_by(metadata: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        manifest_digest: String,
    }
    let text = fs::read(metadata).ok()?;
    serde_json::from_slice::<Metadata>(&text).ok().map(|metadata| metadata.manifest_digest)
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

/// Deletes what nothing owns; with `only`, no more than these paths.
pub(crate) fn delete_unowned(
    connection: &Connection,
    cache: &CacheDir,
    now: DateTime<Utc>,
    only: Option<&HashSet<PathBuf>>,
) -> MicrosandboxResult<Collected> {
    let owners = Owners::read(connection).map_err(MicrosandboxError::db("find out what owns files"))?;
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let found = find_unowned(cache, &owners, now);
    let mut collected = Collected { problems: found.problems, ..Collected::default() };
    let flat_is_busy = any_locked(&cache.root().join("flat/locks"));
    let mut live = LiveOwners { connection, seen_at: None, metadata: None };
    for file in found.old {
        if only.is_some_and(|only| !only.contains(&file.path)) {
            continue;
        }
        let path = cache.root().join(&file.path);
        let deleted = match file.kind {
            UnownedKind::Artifact | UnownedKind::Blob => delete_entry(&mut live, &rooms, &file)?,
            UnownedKind::FlatRef | UnownedKind::FlatBlob if flat_is_busy => Deleted::Busy,
            UnownedKind::FlatRef | UnownedKind::FlatBlob => Deleted::from(fs::remove_file(&path)),
            UnownedKind::Temporary => delete_temporary(&path),
            UnownedKind::Foreign => continue,
        };
        match deleted {
            Deleted::Yes => collected.removed.push(file),
            Deleted::Busy => collected.busy.push(file),
            Deleted::No => {}
            Deleted::Failed(error) => {
                collected.problems.push(format!("could not delete `{}`: {error}", path.display()));
            }
        }
    }
    Ok(collected)
}

/// What owns files at this moment, asked of the index for each file anew.
struct LiveOwners<'a> {
    connection: &'a Connection,
    /// The state of the index in which `metadata` was read: another one when anybody else has changed it since.
    seen_at: Option<i64>,
    /// The names of the metadata of all references, which take long to make.
    metadata: Option<HashSet<String>>,
}

impl LiveOwners<'_> {
    fn own(&mut self, rooms: &Rooms, entry: &Entry) -> rusqlite::Result<bool> {
        // Metadata outlives its reference while a sandbox needs the manifest.
        if entry.room == Room::Manifests
            && let Some(room) = rooms.get(entry.room)
            && let Some(digest) = manifest_named_by(&room.path.join(&entry.name))
            && let Some(fsmeta) = Entry::of_digest(Room::Fsmeta, &digest)
            && is_owned(self.connection, &fsmeta, &mut None)?
        {
            return Ok(true);
        }
        let now = self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if self.seen_at.replace(now) != Some(now) {
            self.metadata = None;
        }
        is_owned(self.connection, entry, &mut self.metadata)
    }
}

enum Deleted {
    Yes,
    /// It has an owner by now, or is gone.
    No,
    /// Somebody holds it.
    Busy,
    Failed(io::Error),
}

impl From<io::Result<()>> for Deleted {
    fn from(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::No,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Deletes an entry of a room under its lease, if nothing owns it by now.
fn delete_entry(live: &mut LiveOwners<'_>, rooms: &Rooms, file: &UnownedFile) -> MicrosandboxResult<Deleted> {
    let mut parts = file.path.iter().filter_map(|part| part.to_str());
    let (Some(room), Some(name)) = (parts.next().and_then(Room::from_name), parts.next()) else {
        return Ok(Deleted::No);
    };
    let entry = Entry { room, name: name.to_owned() };
    let mut claims = Claims::default();
    match claims.claim(rooms, &entry) {
        Ok(Claim::Held) => {}
        Ok(Claim::Busy) => return Ok(Deleted::Busy),
        Err(error) => return Ok(Deleted::Failed(error)),
    }
    let owned = live.own(rooms, &entry).map_err(MicrosandboxError::db("find out what owns a file"))?;
    if owned {
        return Ok(Deleted::No);
    }
    Ok(match unlink_now(rooms, &entry) {
        Ok(true) => Deleted::Yes,
        Ok(false) => Deleted::No,
        Err(error) => Deleted::Failed(error),
    })
}

/// Deletes something of `tmp/` that nobody has locked.
fn delete_temporary(path: &Path) -> Deleted {
    let download_lock = path.with_extension("download.lock");
    let locks = [path, download_lock.as_path()].map(lock_if_free);
    if locks.iter().any(Option::is_none) {
        return Deleted::Busy;
    }
    let is_dir = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    Deleted::from(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) })
}

/// Locks a file or directory for as long as the result lives; nothing to lock where it cannot be opened. Absent
/// where somebody has locked it.
fn lock_if_free(path: &Path) -> Option<Option<fs::File>> {
    match fs::File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Some(file)),
        Err(_) => Some(None),
    }
}

/// Whether somebody has locked a file of this directory.
fn any_locked(directory: &Path) -> bool {
    fs::read_dir(directory)
        .is_ok_and(|entries| entries.flatten().any(|entry| lock_if_free(&entry.path()).is_none()))
}
