//! The ballast of a home: bytes of its file system that are reserved while there is room, and freed when the disk is
//! full.
//!
//! A clean-up has to write before it may delete: its log, its record, its locks. On a full disk it could not begin. So
//! the first change of a home allocates a file of 1 MiB beside its parts, a clean-up that finds the disk full deletes
//! it first, and the end of a clean-up creates it again if there is room.
//!
//! # What survives a crash
//! The file, or a shorter one, which the next change completes. The file has no content of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use super::HomePaths;

/// The size of the ballast, in bytes: much more than a short change of an index needs.
pub(crate) const BYTES: u64 = 1 << 20;

/// The number of available bytes that creating the ballast requires. With fewer, the ballast itself would fill the
/// disk.
const ROOM: u64 = 4 * BYTES;

/// Creates the ballast, unless it exists or the disk has no room for it.
///
/// # Errors
/// Fails if the ballast could not be created. An incomplete file is removed.
pub(crate) fn keep(paths: &HomePaths) -> io::Result<()> {
    match fs::symlink_metadata(&paths.ballast) {
        Ok(metadata) if !metadata.is_file() || metadata.blocks().saturating_mul(512) >= BYTES => {
            return Ok(());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if !has_room(paths)? {
        return Ok(());
    }
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
    let file = file.open(&paths.ballast)?;
    allocate(file).inspect_err(|_| drop(fs::remove_file(&paths.ballast)))
}

/// Returns whether the disk has room for more than a clean-up needs.
pub(crate) fn has_room(paths: &HomePaths) -> io::Result<bool> {
    let disk = rustix::fs::statvfs(&paths.home)?;
    Ok(disk.f_frsize.saturating_mul(disk.f_bavail) >= ROOM)
}

/// Allocates every block. If the file system does not support allocation, writes the blocks.
fn allocate(mut file: File) -> io::Result<()> {
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; 1 << 16];
            for _ in 0..BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

/// Deletes the ballast, so that its bytes can be used at once. Returns whether it existed.
pub(crate) fn give_up(paths: &HomePaths) -> io::Result<bool> {
    match fs::remove_file(&paths.ballast) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // A journaling file system uses blocks again when it is on disk that they are free.
    File::open(&paths.home)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ballast takes its full size on disk, is created once, and is deleted when it is given up.
    #[test]
    fn the_ballast_is_real() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().to_owned());
        assert!(!give_up(&paths).expect("nothing to give up"));
        keep(&paths).expect("made");
        keep(&paths).expect("there");
        let metadata = fs::metadata(&paths.ballast).expect("the ballast");
        assert!(metadata.blocks() * 512 >= BYTES, "{} blocks", metadata.blocks());
        assert!(give_up(&paths).expect("given up") && !paths.ballast.exists());
    }
}
