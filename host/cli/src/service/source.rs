//! The job file of a service.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use larder::job::{JobFile, Policies};

use crate::exit::Failure;

/// A place from which a service reads its jobs.
pub(crate) trait Source {
    /// Returns the path of the job file.
    fn path(&self) -> &Path;

    /// Reads the job file.
    ///
    /// # Errors
    /// Fails if it cannot be used. The failure names everything that is wrong with it.
    async fn read(&self) -> Result<Loaded, Failure>;
}

/// A job file that was read and can be used.
pub(crate) struct Loaded {
    pub(crate) file: JobFile,
    pub(crate) policies: Arc<dyn Policies>,
}

/// The last time that the job file was read.
#[derive(Debug, Clone)]
pub(crate) struct LastRead {
    /// The file, as it was when it was about to be read.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// When it was read.
    pub(crate) at: DateTime<Utc>,
    /// Why the file cannot be used, one finding a line.
    pub(crate) problem: Option<String>,
}

/// A file as far as its metadata tell it from another, or from itself after a change.
///
/// That of the file that a path leads to: links that are swapped, as Kubernetes has them, lead to another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Fingerprint {
    /// Looks at the file that a path leads to. Returns `None` if there is none, or if it cannot be looked at.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A file that is written, replaced, or reached by other links has another fingerprint; one that is only read has the
    /// same.
    #[test]
    fn fingerprints() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).expect("a directory");
            fs::write(at(version).join("larder.toml"), "same").expect("a file");
        }
        symlink("v1", at("..data")).expect("a link");
        symlink("..data/larder.toml", at("larder.toml")).expect("a link");
        let mut seen = vec![Fingerprint::of(&at("larder.toml"))];
        fs::read(at("larder.toml")).expect("the file");
        assert_eq!(Fingerprint::of(&at("larder.toml")), seen[0]);
        let mut now = || {
            let found = Fingerprint::of(&at("larder.toml"));
            assert!(!seen.contains(&found), "{found:?} of {seen:?}");
            seen.push(found);
        };
        symlink("v2", at("..tmp")).and_then(|()| fs::rename(at("..tmp"), at("..data"))).expect("a swap");
        now();
        fs::write(at("v2/larder.toml"), "longer").expect("a file");
        now();
        fs::remove_file(at("..data")).expect("the link");
        now();
    }
}
