//! Compiled code on disk, so that a policy is compiled once on a host and not once in a process.
//!
//! # On disk
//!
//! ```text
//! DIRECTORY/                                 0700, made where it is missing
//!   <SHA-256 of the component>-<host>.code   0600: the code as the compiler serialized it, then a seal of 100 bytes
//! ```
//!
//! `<host>` is a hash of everything that code depends on besides the component: the compiler's version and settings,
//! the limits that are compiled in, the processor's features. An upgrade of the host makes new entries and leaves the
//! old ones to be evicted.
//!
//! # What is trusted
//!
//! Loading code is running it, so nothing is loaded that this user's hosts did not compile themselves. The directory
//! is opened once for each access, must be the user's own and writable by nobody else, and everything happens
//! relative to it; an entry must be a regular file of the user's, writable by nobody else. Its seal has a fixed mark,
//! the key that it was made for, the length and a checksum of the code: a file that was cut off, changed by a failing
//! disk, or put there under another name is not loaded. Whoever can forge a seal inside of such a directory has this
//! user's rights already.
//!
//! # Concurrency and crashes
//!
//! Entries appear by rename and are never changed, so readers see all of an entry or none, and two writers of one
//! entry write the same. An entry that was torn by a power cut fails its checksum and is written again; so is one
//! that is damaged. What a crash leaves behind counts as an entry that nobody uses.
//!
//! # Size
//!
//! Reading an entry sets its modification time. A write that takes the directory past [`CAPACITY`] removes the entries
//! that were not read for longest.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, fstat, futimens,
    mkdirat, openat, renameat, statat, unlinkat,
};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::policy::error::PolicyError;
use crate::reference::Digest;

/// Bytes of all entries together, beyond which old ones are removed: fifteen policies in Python, or any number in Rust.
const CAPACITY: u64 = 1 << 30;

const MARK: &[u8; 16] = b"larder code v1\r\n";
const HASH_DIGITS: usize = 64;
/// The mark, the component's digest, the host's hash, the length of the code and its checksum.
const SEAL: usize = MARK.len() + HASH_DIGITS + 8 + 8 + 4;

/// Compiled code in a directory.
#[derive(Debug)]
pub(super) struct CodeCache {
    directory: PathBuf,
}

/// The key of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeKey {
    /// Hex digits of the SHA-256 of the component.
    component: String,
    /// The hash of the compiler and its settings.
    host: u64,
}

impl CodeKey {
    pub(super) fn new(component: &[u8], engine: &Engine) -> Self {
        // A hash that another version of the standard library computes differently is a miss, and nothing worse.
        let mut host = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut host);
        Self { component: Digest::of(component).hex().to_owned(), host: host.finish() }
    }

    fn file_name(&self) -> String {
        format!("{}-{:016x}.code", self.component, self.host)
    }

    fn seal(&self, length: u64, checksum: u32) -> Vec<u8> {
        let numbers: [&[u8]; 3] = [&self.host.to_le_bytes(), &length.to_le_bytes(), &checksum.to_le_bytes()];
        [&[MARK, self.component.as_bytes()], &numbers[..]].concat().concat()
    }
}

impl CodeCache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the code of this key, if there is an entry that can be trusted.
    pub(super) fn get(&self, key: &CodeKey, engine: &Engine) -> Option<Component> {
        let directory = self.open().ok()?;
        let entry = File::from(openat(&directory, key.file_name(), READ, Mode::empty()).ok()?);
        if let Err(problem) = check_entry(&entry, key) {
            tracing::warn!("not using `{}`: {problem}", self.directory.join(key.file_name()).display());
            return None;
        }
        // Whether it can be written is not important: an entry on a read-only disk is as good.
        let _ = futimens(&entry, &NOW);
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        // SAFETY: the file was made by `put`, which writes what `Component::serialize` gave. It is a regular file
        // owned by this user in a directory that only this user can write (`open`), and its seal has the key and the
        // checksum of these very bytes (`check_entry`). It is opened again by its descriptor, so it is the file that
        // was checked, and no host writes into an entry or shortens one after it was renamed into place, so the
        // mapping stays what it is. That the code suits this engine is checked by the engine once more.
        let component = unsafe { Component::deserialize_file(engine, path) };
        component
            .inspect_err(|error| {
                tracing::warn!("not using `{}`: {error:#}", self.directory.join(key.file_name()).display());
            })
            .ok()
    }

    /// Stores the code of a component.
    ///
    /// # Errors
    /// [`PolicyError::CodeCache`], with the directory and what is wrong with it.
    pub(super) fn put(&self, key: &CodeKey, component: &Component) -> Result<(), PolicyError> {
        let failed = |problem: String| PolicyError::CodeCache { path: self.directory.clone(), problem };
        let code = component.serialize().map_err(|error| failed(format!("{error:#}")))?;
        let store = || -> io::Result<()> {
            self.make()?;
            let directory = self.open()?;
            write_entry(&directory, key, &code)?;
            evict(&directory, &key.file_name(), CAPACITY)
        };
        store().map_err(|error| failed(error.to_string()))
    }

    /// Makes the directory, and those above it, where they are missing.
    fn make(&self) -> io::Result<()> {
        if let Some(above) = self.directory.parent() {
            std::fs::create_dir_all(above)?;
        }
        match mkdirat(CWD, &self.directory, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory, where only this user can write to it.
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, &self.directory, flags, Mode::empty())?;
        only_ours(&fstat(&directory)?)?;
        Ok(directory)
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ };
    Timestamps { last_access: now, last_modification: now }
};

/// Refuses what somebody else could have written.
fn only_ours(stat: &Stat) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse("others than its owner can write to it: `chmod go-w` it");
    }
    Ok(())
}

/// Checks that an entry is whole, ours, and the code of this key.
fn check_entry(mut entry: &File, key: &CodeKey) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let stat = fstat(entry)?;
    only_ours(&stat)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("it is not a regular file");
    }
    let Some(length) = u64::try_from(stat.st_size).ok().and_then(|size| size.checked_sub(SEAL as u64)) else {
        return refuse("it is cut off");
    };
    let mut seal = [0; SEAL];
    entry.seek(SeekFrom::Start(length))?;
    entry.read_exact(&mut seal)?;
    let (identity, checksum) = seal.split_at(SEAL - 4);
    if identity != &key.seal(length, 0)[..SEAL - 4] {
        return refuse("it is cut off, or was not made for this component by this host");
    }
    entry.seek(SeekFrom::Start(0))?;
    if checksum != checksum_of(entry.take(length))?.to_le_bytes() {
        return refuse("it is damaged");
    }
    Ok(())
}

/// Returns the CRC-32C (Castagnoli) of everything that can be read.
fn checksum_of(mut from: impl io::Read) -> io::Result<u32> {
    let mut buffer = vec![0; 256 << 10];
    let mut checksum = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(checksum),
            read => checksum = crc32c::crc32c_append(checksum, &buffer[..read]),
        }
    }
}

/// Writes an entry beside its place and moves it there.
fn write_entry(directory: &OwnedFd, key: &CodeKey, code: &[u8]) -> io::Result<()> {
    let name = key.file_name();
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let aside = format!("{name}.{}.{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, &aside, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file
        .write_all(code)
        .and_then(|()| file.write_all(&key.seal(code.len() as u64, crc32c::crc32c(code))))
        .and_then(|()| Ok(renameat(directory, &aside, directory, &name)?));
    if written.is_err() {
        // What cannot be removed either is evicted some day.
        let _ = unlinkat(directory, &aside, AtFlags::empty());
    }
    written
}

/// Removes what was not read for longest until the entries fit, but not the one that was just written.
fn evict(directory: &OwnedFd, written: &str, capacity: u64) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        // Another process may evict at the same time.
        let Ok(stat) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let bytes = u64::try_from(stat.st_size).unwrap_or_default();
            entries.push(((stat.st_mtime, stat.st_mtime_nsec), name, bytes));
        }
    }
    entries.sort();
    let mut total: u64 = entries.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, name, bytes) in entries {
        if total <= capacity {
            break;
        }
        if name.to_bytes() != written.as_bytes() && unlinkat(directory, &name, AtFlags::empty()).is_ok() {
            total -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
