//! Publishing artifacts of images. Each gets its name only when it is complete and on disk.
//!
//! An entry is made in these steps. Its lease is taken shared, so that no process deletes it, and the lock beside it,
//! so that no other process makes it. It is written to `tmp/`, synced, and renamed. Directories are synced once, before what
//! depends on them: those of artifacts before metadata names them, and that of metadata before the rows. Leases are held until the
//! rows are in the index.
//!
//! An existing and valid artifact is used, whichever program made it, and synced before rows depend on it. A damaged
//! artifact is replaced under its exclusive lease, but not while another program holds the lease. The metadata of a
//! reference is replaced under its publication lease, so that a reader of the metadata can take the leases on what it
//! names.
//!
//! A call that fails or is dropped before the rows are in the index takes back what it published ([`undo`]). **After a crash**
//! there are no rows. Complete entries are orphans, which the next call uses and a prune collects, and incomplete ones are in
//! `tmp/` under names of their own.

mod rows;
mod undo;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use larder_erofs::reader::probe;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::error::IngestProblem;
use super::kept::{self, TEMPORARY};
use crate::artifacts::lease::{self, Held};
use crate::artifacts::plain::{MAX_METADATA, open_file_at, read_at, without_temporary_name};
use crate::artifacts::{CacheDir, Entry, Room, RoomDir, Rooms};
use crate::catalog::owners::LiveOwners;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::store::Store;
use undo::Undo;

pub(crate) use undo::OnFailure;

/// The entries that a call has published, and the leases that it needs. If it is dropped before the rows are in the
/// index, it takes everything back.
pub(crate) struct Publication {
    store: Arc<Store>,
    rooms: Rooms,
    cancelled: Arc<AtomicBool>,
    on_failure: OnFailure,
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
    /// The rooms with names that are not on disk yet.
    unsynced: HashSet<Room>,
    undo: Undo,
}

impl Publication {
    /// Makes a publication without entries. Creates the directories of the cache.
    ///
    /// Setting `cancelled` ends waits for other processes.
    pub(crate) fn new(
        store: Arc<Store>,
        on_failure: OnFailure,
        cancelled: Arc<AtomicBool>,
    ) -> MicrosandboxResult<Self> {
        let cache = store.cache();
        let mut is_new = false;
        for directory in Room::ALL.map(Room::name).into_iter().chain([TEMPORARY]) {
            let path = cache.root().join(directory);
            is_new |= !path.is_dir();
            fs::create_dir_all(&path).map_err(MicrosandboxError::io("make", &path))?;
        }
        if is_new {
            // Otherwise rows could name files in directories that a crash has undone.
            let synced = File::open(cache.root()).and_then(|directory| directory.sync_all());
            synced.map_err(MicrosandboxError::io("sync", cache.root()))?;
        }
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        Ok(Self { store, rooms, cancelled, on_failure, state: Mutex::default() })
    }

    pub(crate) fn cache(&self) -> &CacheDir {
        self.store.cache()
    }

    /// Asks the index.
    pub(crate) fn ask<T>(
        &self,
        action: &'static str,
        query: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> MicrosandboxResult<T> {
        self.store.catalog().ask(action, query)
    }

    /// Returns whether a row owns an entry.
    pub(crate) fn is_owned(&self, entry: &Entry) -> MicrosandboxResult<bool> {
        self.ask("find out what owns a file", |connection| LiveOwners::new(connection).own(entry))
    }

    /// Returns the flag that is set when the call is cancelled.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// Returns the open rooms of the cache.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
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
            Some(_) if self.has_content(entry, file.as_file())? => return self.reuse(entry),
            Some(held) => {
                self.exclude_others(entry)?;
                let persisted = file.persist(&path);
                held.share(&self.cancelled)?;
                persisted.map_err(|error| error.error)?;
            }
        }
        let mut state = self.state();
        if is_new {
            state.undo.fresh.push(entry.clone());
        }
        state.unsynced.insert(entry.room);
        failpoint!("ingest.renamed");
        Ok(())
    }

    /// Takes the lease of a damaged entry, which is held, exclusively, until the entry is published.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] if another program holds the entry.
    pub(crate) fn exclude_others(&self, entry: &Entry) -> io::Result<()> {
        let path = self.cache().path_of(entry);
        let held = self.state().held.get(entry).cloned();
        match held {
            Some(held) if path.try_exists()? && !held.try_exclusive(&self.cancelled)? => {
                let message = format!("`{}` is damaged, and another program holds it", path.display());
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
            _ => Ok(()),
        }
    }

    /// Returns whether an entry has the content of a file.
    pub(crate) fn has_content(&self, entry: &Entry, written: &File) -> io::Result<bool> {
        match self.open(entry) {
            Ok(there) => has_same_content(written, &there),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether a call that failed has kept an entry. What cannot be looked up counts as not kept.
    pub(crate) fn is_kept(&self, entry: &Entry) -> bool {
        kept::is_kept(self.cache(), entry).unwrap_or(false)
    }

    /// Syncs an artifact to disk that is used unchanged, because its maker may not have synced it. Its directory is synced with
    /// those of the others.
    pub(crate) fn reuse(&self, entry: &Entry) -> io::Result<()> {
        self.open(entry)?.sync_all()?;
        self.state().unsynced.insert(entry.room);
        Ok(())
    }

    /// Syncs the directories with names that are not on disk yet.
    pub(crate) fn sync(&self) -> MicrosandboxResult<()> {
        let unsynced = std::mem::take(&mut self.state().unsynced);
        for room in unsynced.into_iter().filter_map(|room| self.rooms.get(room)) {
            room.sync().map_err(MicrosandboxError::io("sync", &room.path))?;
        }
        Ok(())
    }

    /// Releases the leases of these entries. Rows own them now, or they are not needed any longer.
    pub(crate) fn release<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) {
        let mut state = self.state();
        for entry in entries {
            state.held.remove(entry);
        }
    }

    /// Releases all leases.
    pub(crate) fn release_all(&self) {
        self.state().held.clear();
    }

    /// Gives an entry the file that a call which failed has kept of it, if there is one. The entry is held, and nothing has its
    /// name.
    pub(crate) fn restore(&self, entry: &Entry) -> io::Result<bool> {
        let Some(room) = self.rooms.get(entry.room) else { return Ok(false) };
        let is_restored = kept::restore(self.cache(), room, entry)?;
        if is_restored {
            let mut state = self.state();
            state.undo.fresh.push(entry.clone());
            state.unsynced.insert(entry.room);
        }
        Ok(is_restored)
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

    /// Writes an entry that fits into memory.
    pub(crate) fn write_small(&self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        let mut file = self.begin(entry).map_err(io::Error::other)?;
        file.write_all(content)?;
        self.publish(entry, file)
    }
}

fn has_same_content(written: &File, there: &File) -> io::Result<bool> {
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
