//! Files: those that the kit carries along, and writing them so that nobody sees half of one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::KitError;

/// A file that the kit carries along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    /// Below the directory that it is written to, with slashes.
    pub(crate) path: &'static str,
    pub(crate) text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Returns every file below a directory. Links to directories are not followed.
pub(crate) fn below(directory: &Path) -> Result<Vec<PathBuf>, KitError> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(KitError::io("read", &directory))? {
            let path = entry.map_err(KitError::io("read", &directory))?.path();
            if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Writes files below a directory, each one whole; one that is there and the same is left alone.
pub(crate) fn write_all(directory: &Path, files: &[File]) -> Result<(), KitError> {
    files.iter().try_for_each(|file| write(&directory.join(file.path), file.text.as_bytes()))
}

/// Writes a file whole, making its directory; one that is there and the same is left alone, its time too.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), KitError> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    // A file in the current directory has an empty parent.
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    make_directory(directory)?;
    let failed = |error| KitError::io("write", path)(error);
    let mut file = NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    readable_by_all(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<(), KitError> {
    fs::create_dir_all(path).map_err(KitError::io("make", path))
}

/// A file or directory as an absolute path: programs that are run elsewhere get it.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, KitError> {
    std::path::absolute(path).map_err(KitError::io("find", path))
}

/// A temporary file is its owner's alone; what is built is like any other file.
#[cfg(unix)]
fn readable_by_all(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}
