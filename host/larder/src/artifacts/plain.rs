//! Safe access to files and directories: no symbolic link is followed, nothing blocks, and reads are bounded.
//! Everything is named relative to an open directory, so replacing a directory meanwhile has no effect.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::{FileStat, stat_at};

/// The maximum size of a metadata file or record that is read, in bytes.
pub(crate) const MAX_METADATA: u64 = 8 << 20;

/// Opens a directory that is not a symbolic link, if it exists.
///
/// # Errors
/// [`io::ErrorKind::NotADirectory`] for anything else of that name, including a symbolic link.
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
/// [`io::ErrorKind::InvalidInput`] for anything except a regular file. The call neither follows links nor waits for
/// pipes and devices.
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
    /// The allocated bytes that deleting it frees. Files that have a name elsewhere count 0.
    pub(crate) bytes: u64,
    /// The latest modification time in it.
    pub(crate) modified: DateTime<Utc>,
    pub(crate) is_file: bool,
    pub(crate) is_dir: bool,
    /// The file, if it has further names.
    pub(crate) linked: Option<FileStat>,
}

/// A count of the names of files that have several. Such a file is freed with its last name.
#[derive(Debug, Default)]
pub(crate) struct Links {
    seen: HashMap<(u64, u64), u64>,
}

impl Links {
    /// Counts a name of a file. Returns the allocated bytes that deleting every name counted so far frees.
    pub(crate) fn count(&mut self, stat: &FileStat) -> u64 {
        let seen = self.seen.entry((stat.device, stat.identity.inode)).or_default();
        *seen += 1;
        if *seen == stat.links { stat.allocated } else { 0 }
    }
}

/// Measures a file or directory. Returns `None` if it does not exist.
pub(crate) fn measure_at(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Measured>> {
    let Some(stat) = stat_at(&directory, name)? else { return Ok(None) };
    let mut links = Links::default();
    let mut measured = Measured {
        bytes: if stat.is_dir { stat.allocated } else { links.count(&stat) },
        modified: DateTime::from_timestamp_nanos(stat.identity.modified_ns),
        is_file: stat.is_file,
        is_dir: stat.is_dir,
        linked: (!stat.is_dir && stat.links > 1).then_some(stat),
    };
    if stat.is_dir {
        walk(&directory, name, |_, _, stat| {
            let bytes = if stat.is_dir { stat.allocated } else { links.count(stat) };
            measured.bytes = measured.bytes.saturating_add(bytes);
            let modified = DateTime::from_timestamp_nanos(stat.identity.modified_ns);
            measured.modified = measured.modified.max(modified);
            Ok(())
        })?;
    }
    Ok(Some(measured))
}

/// Visits everything in a directory and in those below it. Returns these directories, each after the one that contains
/// it.
fn walk(
    directory: impl AsFd,
    name: &OsStr,
    mut visit: impl FnMut(&OwnedFd, &OsStr, &FileStat) -> io::Result<()>,
) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(name)];
    let mut visited = 0;
    while let Some(path) = found.get(visited).cloned() {
        visited += 1;
        let Some(inner) = open_below(&directory, &path)? else { continue };
        for name in names_in(&inner)? {
            let Some(stat) = stat_at(&inner, name.as_os_str())? else { continue };
            visit(&inner, &name, &stat)?;
            if stat.is_dir {
                found.push(path.join(name));
            }
        }
    }
    Ok(found)
}

/// Opens a directory further down, each part of the path as [`open_dir_at`] does. Holds one descriptor at a time, at
/// any depth. An empty path is the directory itself.
fn open_below(directory: impl AsFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut opened = directory.as_fd().try_clone_to_owned()?;
    for part in path {
        let Some(next) = open_dir_at(&opened, part)? else { return Ok(None) };
        opened = next;
    }
    Ok(Some(opened))
}

/// Deletes a file, or a symbolic link itself. Returns whether it existed.
pub(crate) fn unlink_at(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    gone(unlinkat(directory, name, AtFlags::empty()))
}

/// Deletes a directory with everything in it. Deletes symbolic links in it as links. Returns whether it existed.
pub(crate) fn remove_dir_at(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    let directories =
        walk(
            &directory,
            name,
            |inner, name, stat| {
                if stat.is_dir { Ok(()) } else { unlink_at(inner, name).map(drop) }
            },
        )?;
    let mut was_there = false;
    for path in directories.iter().rev() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        // Where that is gone, there is nothing left in it.
        let Some(parent) = open_below(&directory, parent)? else { continue };
        was_there = gone(unlinkat(parent, name, AtFlags::REMOVEDIR))?;
    }
    Ok(was_there)
}

fn gone(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the error of the operating system in an error that also names a temporary file, which only this process knows.
pub(crate) fn without_temporary_name(error: io::Error) -> io::Error {
    // The error says `… (os error 2) at path "…"`, and has no source.
    let text = error.to_string();
    let Some((cause, _)) = text.split_once(" at path ") else { return error };
    let code = cause.rsplit_once("(os error ").and_then(|(_, code)| code.strip_suffix(')')?.parse().ok());
    code.map_or_else(|| io::Error::new(error.kind(), cause), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A pipe, a link and a long file are refused at once. The target of a link stays when the link's directory is
    /// deleted.
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

    /// A deep directory is measured and deleted with everything in it. A file with several names in it counts once, and
    /// a file that also has a name elsewhere does not count.
    #[test]
    fn a_deep_directory_goes() {
        let directory = tempfile::tempdir().unwrap();
        let opened = super::super::open_dir(directory.path()).unwrap().unwrap();
        let mut inner = opened.try_clone().unwrap();
        for _ in 0..200 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = open_dir_at(&inner, "d".as_ref()).unwrap().unwrap();
        }
        let empty = measure_at(&opened, "d".as_ref()).unwrap().unwrap().bytes;
        std::fs::write(directory.path().join("elsewhere"), [1; 9000]).unwrap();
        std::fs::write(directory.path().join("d/file"), [1; 9000]).unwrap();
        let link = |from: &str, to: &str| {
            std::fs::hard_link(directory.path().join(from), directory.path().join(to)).unwrap();
        };
        link("elsewhere", "d/other");
        link("d/file", "d/d/again");
        let allocated = stat_at(&opened, "elsewhere").unwrap().unwrap().allocated;
        assert!(allocated > 0);
        assert_eq!(measure_at(&opened, "d".as_ref()).unwrap().unwrap().bytes, empty + allocated);
        assert!(remove_dir_at(&opened, "d".as_ref()).unwrap());
        assert!(!remove_dir_at(&opened, "d".as_ref()).unwrap());
        assert_eq!(names_in(&opened).unwrap(), ["elsewhere"]);
    }
}
