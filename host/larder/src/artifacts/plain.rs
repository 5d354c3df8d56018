//! Files and directories opened as what they are: no symbolic link is followed, nothing blocks, and what is read has a
//! bound. Everything is named relative to an open directory, so a directory that is replaced meanwhile changes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::stat_at;

/// The longest metadata file or record that is read, in bytes.
pub(crate) const MAX_METADATA: u64 = 8 << 20;

/// Opens a directory that is no symbolic link, where it exists.
///
/// # Errors
/// [`io::ErrorKind::NotADirectory`] for anything else of that name, symbolic links among it.
pub(crate) fn open_dir_at(directory: impl AsFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for anything but a regular file: links, pipes and devices are neither followed nor
/// waited for.
pub(crate) fn open_file_at(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO) => return Err(not_regular()),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open_file_at`], and [`io::ErrorKind::FileTooLarge`].
pub(crate) fn read_at(directory: impl AsFd, name: &OsStr, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_file_at(directory, name)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let message = format!("it has more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// Returns the names in a directory.
pub(crate) fn names_in(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The size and age of a file, or of a directory with everything in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Allocated bytes, those of hard-linked files aside.
    pub(crate) bytes: u64,
    /// When the last of it was modified.
    pub(crate) modified: DateTime<Utc>,
    pub(crate) is_file: bool,
    pub(crate) is_dir: bool,
}

/// Measures a file or directory. Absent where there is none.
pub(crate) fn measure_at(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Measured>> {
    let Some(stat) = stat_at(&directory, name)? else { return Ok(None) };
    let counts = stat.is_dir || stat.links == 1;
    let mut measured = Measured {
        bytes: if counts { stat.allocated } else { 0 },
        modified: DateTime::from_timestamp_nanos(stat.identity.modified_ns),
        is_file: stat.is_file,
        is_dir: stat.is_dir,
    };
    if stat.is_dir
        && let Some(inner) = open_dir_at(&directory, name)?
    {
        for name in names_in(&inner)? {
            let Some(part) = measure_at(&inner, &name)? else { continue };
            measured.bytes = measured.bytes.saturating_add(part.bytes);
            measured.modified = measured.modified.max(part.modified);
        }
    }
    Ok(Some(measured))
}

/// Deletes a file, or a symbolic link itself. Returns whether there was one.
pub(crate) fn unlink_at(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    gone(unlinkat(directory, name, AtFlags::empty()))
}

/// Deletes a directory with everything in it, symbolic links in it as links. Returns whether there was one.
pub(crate) fn remove_dir_at(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    let Some(inner) = open_dir_at(&directory, name)? else { return Ok(false) };
    for name in names_in(&inner)? {
        if stat_at(&inner, name.as_os_str())?.is_some_and(|stat| stat.is_dir) {
            remove_dir_at(&inner, &name)?;
        } else {
            unlink_at(&inner, &name)?;
        }
    }
    gone(unlinkat(directory, name, AtFlags::REMOVEDIR))
}

fn gone(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A pipe, a link and a long file are refused at once; what a link leads to stays when its directory goes.
    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("file"), "12345").unwrap();
        std::fs::create_dir(path.join("work")).unwrap();
        symlink(path.join("file"), path.join("work/link")).unwrap();
        symlink(path, path.join("loop")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("pipe"), Mode::RUSR).unwrap();
        let opened = super::super::open_dir(path).unwrap().unwrap();
        let kind = |name: &str, limit| read_at(&opened, name.as_ref(), limit).map_err(|error| error.kind());
        assert_eq!(kind("file", 5), Ok(b"12345".to_vec()));
        assert_eq!(kind("file", 4), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(kind("pipe", 5), Err(io::ErrorKind::InvalidInput));
        assert_eq!(kind("loop", 5), Err(io::ErrorKind::InvalidInput));
        assert_eq!(kind("work", 5), Err(io::ErrorKind::InvalidInput));
        let linked = open_dir_at(&opened, "loop".as_ref()).map_err(|error| error.kind());
        assert_eq!(linked.unwrap_err(), io::ErrorKind::NotADirectory);
        assert!(remove_dir_at(&opened, "work".as_ref()).unwrap());
        assert!(!path.join("work").exists() && path.join("file").exists());
    }
}
