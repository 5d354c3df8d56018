//! The files of the cache: their places, their leases and their deletion.
//!
//! ```text
//! CACHE/
//!   layers/sha256_<diff ID>.erofs       one layer as an EROFS image
//!   fsmeta/sha256_<manifest>.erofs      the merged metadata of an image's layers
//!   vmdk/sha256_<manifest>.vmdk         the descriptor that joins them into one disk
//!   manifests/<reference hash>.json     the result of resolving the reference when it was pulled
//!   {each}/.msb-leases/<name hash>.lock the lease on an entry (see [`lease`])
//!   flat/{refs,blobs,locks}/            images as flat disks
//!   tmp/                                work in progress
//!   .larder-home                        the marker of the home that owns the cache (see [`marker`])
//! ```
//!
//! The first four are *rooms*: their entries are named after a digest, owned by rows of the index, and deleted under
//! an exclusive lease only ([`lease`], [`unlink`]). A caller that knows which entries rows own finds files that no
//! row owns ([`unowned`]). Nothing here uses SQL.
//!
//! # What survives a crash
//! Files, and lock files without a lock. A name that was unlinked stays deleted once its directory is synced
//! ([`RoomDir::sync`]).

pub(crate) mod lease;
pub(crate) mod marker;
pub(crate) mod plain;
pub(crate) mod unlink;
pub(crate) mod unowned;
pub(crate) mod work;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::reference::{Digest, Reference};

/// The directory of the artifacts.
#[derive(Debug, Clone)]
pub(crate) struct CacheDir {
    root: PathBuf,
    /// The home that uses the cache. The cache may be in it or elsewhere.
    home: PathBuf,
}

/// A directory of entries that rows of the index own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Room {
    Layers,
    Fsmeta,
    Vmdk,
    Manifests,
}

impl Room {
    pub(crate) const ALL: [Self; 4] = [Self::Layers, Self::Fsmeta, Self::Vmdk, Self::Manifests];

    /// Returns the name of the directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Fsmeta => "fsmeta",
            Self::Vmdk => "vmdk",
            Self::Manifests => "manifests",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|room| room.name() == name)
    }

    /// Returns the texts before and after the hex digits in the name of an entry.
    fn affixes(self) -> (&'static str, &'static str) {
        match self {
            Self::Layers | Self::Fsmeta => ("sha256_", ".erofs"),
            Self::Vmdk => ("sha256_", ".vmdk"),
            Self::Manifests => ("", ".json"),
        }
    }

    /// Returns the hex digits in the name of an entry, or `None` if the name is not that of an entry.
    pub(crate) fn key_of(self, name: &str) -> Option<&str> {
        let (prefix, suffix) = self.affixes();
        let key = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        (key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(key)
    }
}

/// An entry of a room: a file name without a separator, made of a valid digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) room: Room,
    pub(crate) name: String,
}

impl Entry {
    /// Returns the entry whose name is made of these hex digits.
    pub(crate) fn of(room: Room, hex: &str) -> Self {
        let (prefix, suffix) = room.affixes();
        Self { room, name: [prefix, hex, suffix].concat() }
    }

    /// Returns the entry of a digest.
    pub(crate) fn named(room: Room, digest: &Digest) -> Self {
        Self::of(room, digest.hex())
    }

    /// Returns the entry of a digest from the index, or `None` if the text is not a digest.
    pub(crate) fn of_digest(room: Room, digest: &str) -> Option<Self> {
        digest.parse::<Digest>().ok().map(|digest| Self::of(room, digest.hex()))
    }

    /// Returns the entries of a manifest's own files: its fsmeta image and its VMDK descriptor.
    pub(crate) fn joined(manifest: &Digest) -> [Self; 2] {
        [Room::Fsmeta, Room::Vmdk].map(|room| Self::named(room, manifest))
    }

    /// Returns its path, relative to the cache.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(self.room.name()).join(&self.name)
    }

    /// Returns the entry for the metadata of a reference.
    pub(crate) fn metadata(reference: &Reference) -> Self {
        Self::of(Room::Manifests, &reference.metadata_key())
    }
}

/// The file system's record of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) identity: FileIdentity,
    pub(crate) is_file: bool,
    pub(crate) is_dir: bool,
    /// The allocated bytes.
    pub(crate) allocated: u64,
    pub(crate) device: u64,
    pub(crate) links: u64,
}

/// The identity of a file, which differs from that of a later file of the same name, even if the inode number is
/// reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// The time of modification, in nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// The time of birth, in nanoseconds since 1970, on file systems that record it.
    pub(crate) born_ns: Option<i64>,
}

/// Returns the file system's record of `name` in `directory`, without following symbolic links. Returns `None` if
/// there is no such file.
pub(crate) fn stat_at(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Option<FileStat>> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let nanoseconds = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
    Ok(Some(FileStat {
        identity: FileIdentity {
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified_ns: nanoseconds(stat.stx_mtime),
            born_ns: born.then(|| nanoseconds(stat.stx_btime)),
        },
        is_file: kind.is_file(),
        is_dir: kind.is_dir(),
        allocated: stat.stx_blocks.saturating_mul(512),
        device: (u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor),
        links: u64::from(stat.stx_nlink),
    }))
}

impl CacheDir {
    pub(crate) fn new(root: PathBuf, home: PathBuf) -> Self {
        Self { root, home }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path_of(&self, entry: &Entry) -> PathBuf {
        self.root.join(entry.path())
    }

    /// Opens a directory of the cache, if it exists. Follows no symbolic link below the cache itself.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotADirectory`] if something else has its name.
    pub(crate) fn open_plain(&self, directory: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(mut opened) = open_dir(&self.root)? else { return Ok(None) };
        for part in directory {
            match plain::open_dir_at(&opened, part)? {
                Some(inner) => opened = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(opened))
    }

    /// Opens the rooms that exist.
    pub(crate) fn rooms(&self) -> io::Result<Rooms> {
        let mut rooms = Rooms::default();
        for room in Room::ALL {
            rooms.open[room as usize] = open_dir(&self.root.join(room.name()))?
                .map(|directory| RoomDir { path: self.root.join(room.name()), directory });
        }
        Ok(rooms)
    }
}

/// Opens a directory, if it exists.
pub(crate) fn open_dir(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The open rooms of a cache. A room that does not exist has no entries.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    open: [Option<RoomDir>; 4],
}

/// An open room.
#[derive(Debug)]
pub(crate) struct RoomDir {
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
}

impl Rooms {
    pub(crate) fn get(&self, room: Room) -> Option<&RoomDir> {
        self.open[room as usize].as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Room, &RoomDir)> {
        Room::ALL.into_iter().filter_map(|room| self.get(room).map(|opened| (room, opened)))
    }

    /// Returns the file system's record of an entry.
    pub(crate) fn stat(&self, entry: &Entry) -> io::Result<Option<FileStat>> {
        self.get(entry.room).map_or(Ok(None), |room| stat_at(&room.directory, &entry.name))
    }
}

impl RoomDir {
    /// Syncs the directory's entries to disk, so that unlinked names do not reappear.
    pub(crate) fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.directory).map_err(Into::into)
    }
}

/// Asks the file system of a path, or of its nearest parent that exists.
pub(crate) fn file_system(path: &Path) -> io::Result<rustix::fs::StatVfs> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Ok(rustix::fs::statvfs(existing)?)
}

/// Returns the allocated bytes of all files below a directory, with hard links counted once. A directory that does
/// not exist, or is deleted during the measurement, has none.
pub(crate) fn allocated_bytes(directory: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut linked = std::collections::HashSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut bytes = 0_u64;
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    while let Some(directory) = pending.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() == 1 || linked.insert((metadata.dev(), metadata.ino())) {
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry is named after a valid digest, and no other text makes a name.
    #[test]
    fn names_come_from_digests() {
        let hex = "ab".repeat(32);
        let entry = Entry::of_digest(Room::Layers, &format!("sha256:{hex}")).expect("an entry");
        assert_eq!(entry.name, format!("sha256_{hex}.erofs"));
        assert_eq!(Room::Layers.key_of(&entry.name), Some(hex.as_str()));
        for bad in ["sha256:../../x", "sha256:", "md5:ab", "", "sha256:ABCD"] {
            assert_eq!(Entry::of_digest(Room::Vmdk, bad), None, "{bad}");
        }
        for bad in ["notes.txt", "sha256_ab.erofs", &format!("{}.lock", entry.name)] {
            assert_eq!(Room::Layers.key_of(bad), None, "{bad}");
        }
    }

    /// The metadata of a reference is named as microsandbox names it.
    #[test]
    fn metadata_is_named_by_the_normalized_reference() {
        let reference: Reference = "docker.io/acme/app00001:v1".parse().expect("a reference");
        assert_eq!(
            Entry::metadata(&reference).name,
            "1363703576b43b795153d9f339d9bc5bf0f18f688464fd1c8847e7d0bdd623d2.json"
        );
    }
}
