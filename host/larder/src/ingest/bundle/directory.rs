//! The files of a directory, none of which is outside of it but a blob.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{Section, normal};
use crate::ingest::error::IngestProblem;
use crate::reference::Digest;

/// Opens a file of a directory. Returns `None` if there is none.
pub(super) fn open_beneath(directory: &OwnedFd, name: &str) -> Result<Option<Section>, IngestProblem> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(directory.as_fd(), name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) if is_blob(name) => openat(directory, name, flags, Mode::empty()),
        // Filters of system calls may not know it.
        Err(Errno::NOSYS | Errno::PERM) => open_without_links(directory, name, flags),
        opened => opened,
    };
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV | Errno::LOOP) => {
            return Err(IngestProblem::Entry("it leads out of the directory".to_owned()));
        }
        Err(error) => return Err(IngestProblem::Read(error.into())),
    };
    if !file.metadata().map_err(IngestProblem::Read)?.is_file() {
        return Err(IngestProblem::Entry("it is not a regular file".to_owned()));
    }
    Section::whole(file).map(Some).map_err(IngestProblem::Read)
}

/// Returns whether a file of a layout is named by the digest of its content.
fn is_blob(name: &str) -> bool {
    name.strip_prefix("blobs/sha256/").is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}

/// Opens a file by its components, none of which may be a symbolic link but that of a blob.
fn open_without_links(directory: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = normal(name.as_bytes()).map_err(|_| Errno::XDEV)?.ok_or(Errno::NOENT)?;
    let mut parent: Option<OwnedFd> = None;
    let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
    for component in above.split('/').filter(|component| !component.is_empty()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        parent = Some(openat(parent.as_ref().unwrap_or(directory), component, flags, Mode::empty())?);
    }
    let flags = if is_blob(&path) { flags } else { flags | OFlags::NOFOLLOW };
    openat(parent.as_ref().unwrap_or(directory), last, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::open_dir;

    /// Where the kernel cannot be told to stay in a directory, no links are followed, but those of blobs.
    #[test]
    fn without_openat2() {
        let root = tempfile::tempdir().expect("a directory");
        let blob = format!("blobs/sha256/{}", "a".repeat(64));
        std::fs::create_dir_all(root.path().join("blobs/sha256")).expect("directories");
        std::fs::write(root.path().join("index.json"), "x").expect("a file");
        for link in ["link.json", &blob] {
            std::os::unix::fs::symlink(root.path().join("index.json"), root.path().join(link))
                .expect("a link");
        }
        std::os::unix::fs::symlink("blobs", root.path().join("other")).expect("a link");
        let directory = open_dir(root.path()).expect("opened").expect("a directory");
        let open = |name: &str| open_without_links(&directory, name, OFlags::RDONLY).map(drop);
        assert_eq!(open("index.json"), Ok(()));
        assert_eq!(open(&blob), Ok(()));
        assert_eq!(open("link.json"), Err(Errno::LOOP));
        assert_eq!(open("../index.json"), Err(Errno::XDEV));
        assert_eq!(open("missing/x"), Err(Errno::NOENT));
        assert!(open("other/sha256").is_err());
    }
}
