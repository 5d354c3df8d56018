//! Publishing artifacts of images. Each gets its name only when it is complete and on disk.
//!
//! An entry is made in these steps. Its lease is taken shared, so that no process deletes it, and the lock beside it,
//! so that no other process makes it. It is written to `tmp/`, synced, renamed, and its directory is synced. Leases are
//! held until the rows are in the index. One transaction adds them when all entries of a call are published.
//!
//! An existing and valid artifact is used, whichever program made it, and synced before rows depend on it. A damaged
//! artifact is replaced under its exclusive lease, but not while another program holds the lease. The metadata of a
//! reference is replaced under its publication lease, so that a reader of the metadata can take the leases on what it
//! names.
//!
//! A call that fails or is dropped before the rows are in the index takes back what it published: each entry under its
//! exclusive lease, and only if no row owns it. **After a crash** there are no rows. Complete entries are orphans,
//! which the next prune collects, and incomplete ones are in `tmp/` under names of their own.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use larder_erofs::reader::probe;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::error::IngestProblem;
use super::metadata;
use super::source::NamedImage;
use crate::artifacts::lease::{self, Claim, Claims, Held};
use crate::artifacts::plain::{MAX_METADATA, open_file_at, read_at, without_temporary_name};
use crate::artifacts::unlink::unlink_now;
use crate::artifacts::{CacheDir, Entry, Room, RoomDir, Rooms};
use crate::catalog::journal::PullCost;
use crate::catalog::owners::LiveOwners;
use crate::catalog::publish::{NewImage, NewOrigin, insert};
use crate::catalog::{PooledReader, Writer};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::records::ImageHandle;
use crate::reference::Reference;
use crate::store::Store;

/// The entries that a call has published, and the leases that it needs. If it is dropped before the rows are in the
/// index, it takes everything back.
pub(crate) struct Publication {
    store: Arc<Store>,
    rooms: Rooms,
    cancelled: Arc<AtomicBool>,
    state: Mutex<State>,
}

/// The exclusive right to make an entry. Dropping it lets the next call make the entry.
#[derive(Debug)]
pub(crate) struct Turn {
    _lock: Held,
}

#[derive(Default)]
struct State {
    held: HashMap<Entry, Arc<Held>>,
    /// The entries that did not exist before.
    fresh: Vec<Entry>,
    /// The metadata as it was before.
    replaced: Vec<(Entry, Vec<u8>)>,
    committed: bool,
}

impl Publication {
    /// Makes a publication without entries. Creates the directories of the cache.
    ///
    /// Setting `cancelled` ends waits for other processes.
    pub(crate) fn new(store: Arc<Store>, cancelled: Arc<AtomicBool>) -> MicrosandboxResult<Self> {
        let cache = store.cache();
        let mut is_new = false;
        for directory in Room::ALL.map(Room::name).into_iter().chain([TEMPORARY]) {
            let path = cache.root().join(directory);
            is_new |= !path.exists();
            fs::create_dir_all(&path).map_err(MicrosandboxError::io("make", &path))?;
        }
        if is_new {
            // What is synced in a room is on disk only if the room is.
            let synced = File::open(cache.root()).and_then(|root| root.sync_all());
            synced.map_err(MicrosandboxError::io("sync", cache.root()))?;
        }
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        Ok(Self { store, rooms, cancelled, state: Mutex::default() })
    }

    pub(crate) fn cache(&self) -> &CacheDir {
        self.store.cache()
    }

    /// Returns a reader of the index.
    pub(crate) fn reader(&self) -> MicrosandboxResult<PooledReader> {
        self.store.catalog().reader()
    }

    /// Returns the flag that is set when the call is cancelled.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// Returns the directory of work in progress.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.cache().root().join(TEMPORARY)
    }

    fn room(&self, room: Room) -> MicrosandboxResult<&RoomDir> {
        let path = || self.cache().root().join(room.name());
        let missing = || MicrosandboxError::io("open", &path())(io::ErrorKind::NotFound.into());
        self.rooms.get(room).ok_or_else(missing)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lease of an entry until the rows are in the index, and takes the right to make the entry. Waits for
    /// another process that has this right, after calling `waiting`.
    pub(crate) fn hold(&self, entry: &Entry, waiting: impl FnOnce()) -> MicrosandboxResult<Turn> {
        let room = self.room(entry.room)?;
        if !self.state().held.contains_key(entry) {
            let held = lease::hold(&room.directory, &entry.name, &self.cancelled);
            let held =
                held.map_err(|error| not_locked(error, "hold", entry, &self.cache().path_of(entry)))?;
            self.state().held.insert(entry.clone(), Arc::new(held));
        }
        let name = match entry.room {
            // What microsandbox locks while it pulls a reference.
            Room::Manifests => entry.name.replace(".json", ".lock"),
            _ => format!("{}.lock", entry.name),
        };
        let attempt = || lease::try_lock_beside(&room.directory, &name);
        let lock = attempt().and_then(|free| match free {
            Some(lock) => Ok(lock),
            None => {
                waiting();
                lease::wait(&self.cancelled, attempt)
            }
        });
        let lock = lock.map_err(|error| not_locked(error, "lock", entry, &room.path.join(&name)))?;
        Ok(Turn { _lock: lock })
    }

    /// Creates a file for the content of an entry. Dropping it deletes the file.
    pub(crate) fn begin(&self, entry: &Entry) -> MicrosandboxResult<NamedTempFile> {
        let directory = self.temporary();
        let stem = entry.name.split('.').next().unwrap_or_default();
        let suffix = format!("{}.part", entry.name.trim_start_matches(stem));
        let file = tempfile::Builder::new()
            .prefix(&format!("{stem}-"))
            .suffix(&suffix)
            .tempfile_in(&directory)
            .map_err(without_temporary_name)
            .map_err(MicrosandboxError::io("make a file in", &directory))?;
        // Nobody collects what is locked, however long it takes. Nobody else has it, so this cannot fail.
        let _ = flock(file.as_file(), FlockOperation::NonBlockingLockShared);
        Ok(file)
    }

    /// Renames a file to its entry. Replaces a damaged artifact, and always replaces metadata.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] if another program holds the entry to be replaced.
    pub(crate) fn publish(&self, entry: &Entry, file: NamedTempFile) -> io::Result<()> {
        failpoint!("ingest.written");
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        failpoint!("ingest.synced");
        let path = self.cache().path_of(entry);
        let is_new = !path.try_exists()?;
        let _publication = match self.rooms.get(Room::Manifests) {
            Some(manifests) if !is_new && entry.room == Room::Manifests => {
                Some(lease::hold_publication(&manifests.directory, &entry.name, &self.cancelled)?)
            }
            _ => None,
        };
        let held = self.state().held.get(entry).cloned();
        match held.filter(|_| !is_new && entry.room != Room::Manifests) {
            None => drop(file.persist(&path).map_err(|error| error.error)?),
            // Another program has made it meanwhile, of the same.
            Some(_) if has_same_content(file.as_file(), &path)? => return self.reuse(entry),
            Some(held) => {
                if !held.try_exclusive(&self.cancelled)? {
                    let message = format!("`{}` is damaged, and another program holds it", path.display());
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
                }
                let persisted = file.persist(&path);
                held.share(&self.cancelled)?;
                persisted.map_err(|error| error.error)?;
            }
        }
        if is_new {
            self.state().fresh.push(entry.clone());
        }
        failpoint!("ingest.renamed");
        self.rooms.get(entry.room).map_or(Ok(()), RoomDir::sync)
    }

    /// Syncs an artifact to disk that is used unchanged, because its maker may not have synced it.
    pub(crate) fn reuse(&self, entry: &Entry) -> io::Result<()> {
        self.open(entry)?.sync_all()?;
        self.rooms.get(entry.room).map_or(Ok(()), RoomDir::sync)
    }

    /// Reads a small entry.
    pub(crate) fn read_small(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let Some(room) = self.rooms.get(entry.room) else { return Err(io::ErrorKind::NotFound.into()) };
        read_at(&room.directory, entry.name.as_ref(), MAX_METADATA)
    }

    /// Opens an artifact: a regular file of its room, without following links.
    pub(crate) fn open(&self, entry: &Entry) -> io::Result<File> {
        let Some(room) = self.rooms.get(entry.room) else { return Err(io::ErrorKind::NotFound.into()) };
        open_file_at(&room.directory, entry.name.as_ref())
    }

    /// Returns the length of a valid EROFS image without additional bytes, or `None` if there is no such image.
    ///
    /// # Errors
    /// Fails if the image cannot be opened: it may be valid, and must not be replaced.
    pub(crate) fn sound_image(&self, entry: &Entry) -> io::Result<Option<u64>> {
        let file = match self.open(entry) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let Ok(superblock) = probe(file) else { return Ok(None) };
        let whole = u64::from(superblock.blocks) * larder_erofs::format::BLOCK_SIZE as u64 == length;
        Ok(whole.then_some(length))
    }

    /// Writes the metadata of every reference of these images, each under its lock. Returns the locks.
    pub(crate) fn describe(&self, images: &[NamedImage]) -> MicrosandboxResult<Vec<Turn>> {
        let texts: Vec<String> = images.iter().map(|named| metadata::encode(&named.image)).collect();
        let mut wanted: Vec<(Entry, &Reference, &str)> = images
            .iter()
            .zip(&texts)
            .flat_map(|(named, text)| named.references.iter().map(move |reference| (reference, text)))
            .map(|(reference, text)| (Entry::metadata(reference), reference, text.as_str()))
            .collect();
        // Whoever takes several locks takes them in one order, and of two images under one name the last counts.
        wanted.reverse();
        let mut seen = HashSet::new();
        wanted.retain(|(entry, _, _)| seen.insert(entry.clone()));
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut locks = Vec::new();
        for (entry, reference, text) in wanted {
            locks.push(self.hold(&entry, || {})?);
            self.write_metadata(&entry, text).map_err(|error| {
                MicrosandboxError::from(IngestProblem::writing(error).of(reference.as_str()))
            })?;
            failpoint!("ingest.described");
        }
        Ok(locks)
    }

    fn write_metadata(&self, entry: &Entry, text: &str) -> io::Result<()> {
        match self.read_small(entry) {
            Ok(before) if before == text.as_bytes() => return self.reuse(entry),
            Ok(before) => self.state().replaced.push((entry.clone(), before)),
            // Nothing of that length is metadata.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {}
            Err(error) => return Err(error),
        }
        self.write_small(entry, text.as_bytes())
    }

    /// Writes an entry that fits into memory.
    pub(crate) fn write_small(&self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        let mut file = self.begin(entry).map_err(io::Error::other)?;
        file.write_all(content)?;
        self.publish(entry, file)
    }

    /// Adds the images to the index in one transaction, with the cost of a pull, and releases everything.
    pub(crate) fn commit(
        self,
        writer: &mut Writer,
        images: &[NewImage],
        origin: NewOrigin,
        cost: Option<PullCost>,
        now: chrono::DateTime<chrono::Utc>,
    ) -> MicrosandboxResult<Vec<ImageHandle>> {
        let action = "add images";
        let handles = writer.change(action, |connection| {
            let handles = insert(connection, images, origin, cost, now);
            let handles = handles.map_err(MicrosandboxError::db(action))?;
            failpoint!("ingest.inserted");
            Ok(handles)
        })?;
        failpoint!("ingest.committed");
        self.state().committed = true;
        Ok(handles)
    }
}

/// Returns whether a written file has the same content as the file at a path.
fn has_same_content(written: &File, path: &Path) -> io::Result<bool> {
    let there = File::open(path)?;
    if there.metadata()?.len() != written.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut offset = 0;
    loop {
        let count = written.read_at(&mut ours, offset)?;
        if count == 0 {
            return Ok(true);
        }
        // What cannot be read is not the same.
        if there.read_exact_at(&mut theirs[..count], offset).is_err() || ours[..count] != theirs[..count] {
            return Ok(false);
        }
        offset += count as u64;
    }
}

/// Returns the error for a lock that could not be taken: cancellation, or the error of the file.
fn not_locked(error: io::Error, action: &'static str, entry: &Entry, path: &Path) -> MicrosandboxError {
    match error.kind() {
        io::ErrorKind::Interrupted => IngestProblem::Cancelled.of(&entry.name).into(),
        _ => MicrosandboxError::io(action, path)(error),
    }
}

/// The directory of work in progress.
const TEMPORARY: &str = "tmp";

impl Drop for Publication {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.state());
        if state.committed || (state.fresh.is_empty() && state.replaced.is_empty()) {
            return;
        }
        let State { held, fresh, replaced, .. } = state;
        for (entry, before) in replaced {
            if let Err(error) = self.write_small(&entry, &before) {
                let path = self.cache().path_of(&entry);
                tracing::warn!("could not restore `{}`: {error}", path.display());
            }
        }
        // An exclusive lease is not to be had while we hold a shared one.
        drop(held);
        if let Err(error) = self.take_back(&fresh) {
            tracing::warn!("files that nothing owns are left for the next prune: {error}");
        }
    }
}

impl Publication {
    /// Deletes what this call published, unless another process uses it or a row owns it now. A failed deletion does
    /// not stop the others.
    fn take_back(&self, fresh: &[Entry]) -> MicrosandboxResult<()> {
        let reader = self.reader()?;
        let mut owners = LiveOwners::new(&reader);
        for entry in fresh {
            if let Err(error) = self.take_back_one(entry, &mut owners) {
                tracing::warn!("a file that nothing owns is left for the next prune: {error}");
            }
        }
        Ok(())
    }

    fn take_back_one(&self, entry: &Entry, owners: &mut LiveOwners<'_>) -> MicrosandboxResult<()> {
        let path = self.cache().path_of(entry);
        let failed = || MicrosandboxError::io("delete", &path);
        let mut claims = Claims::default();
        // Somebody else uses it, and answers for it.
        if claims.claim(&self.rooms, entry).map_err(failed())? == Claim::Busy {
            return Ok(());
        }
        let owned = owners.own(entry);
        if !owned.map_err(MicrosandboxError::db("find out what owns a file"))? {
            unlink_now(&self.rooms, entry).map_err(failed())?;
        }
        Ok(())
    }
}

/// The known lengths of layers, by diff ID.
pub(crate) type Sizes = HashMap<crate::reference::Digest, Option<u64>>;
