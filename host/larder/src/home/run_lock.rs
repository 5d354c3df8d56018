//! The locks of runs.
//!
//! [`RunLock`] is what a process holds while a run of it is on record and has not ended: without it, the process of such
//! a run is gone. It is a shared `flock` on the directory `db` of the home. [`JobLock`] is what a process holds while it
//! runs a job, so that one runs at a time: an exclusive `flock` on the home. So both need no file, which a full disk would
//! have no room for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::HomePaths;

/// The number of attempts to take the lock, a millisecond apart: a process that looks whether it is held has it for a
/// moment.
const ATTEMPTS: u32 = 100;

/// The number of attempts to take the lock of jobs, a millisecond apart: whoever looks whether it is held has it for a
/// moment.
#[cfg(feature = "policy")]
const LOOKS: u32 = 10;

/// The lock, which is held until drop.
#[derive(Debug)]
pub(crate) struct RunLock {
    _directory: OwnedFd,
}

impl RunLock {
    /// Takes the lock, which other processes may hold as well.
    ///
    /// # Errors
    /// Fails if the file system has no such locks, or if another process keeps the directory locked.
    pub(crate) fn take(paths: &HomePaths) -> io::Result<Self> {
        let directory = directory(&paths.db_dir)?;
        for _ in 1..ATTEMPTS {
            match flock(&directory, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
                result => return result.map(|()| Self { _directory: directory }).map_err(Into::into),
            }
        }
        Err(Errno::WOULDBLOCK.into())
    }

    /// Returns whether a process holds the lock.
    ///
    /// # Errors
    /// Fails if the directory cannot be opened, or if the file system has no such locks.
    pub(crate) fn is_held(paths: &HomePaths) -> io::Result<bool> {
        match flock(&directory(&paths.db_dir)?, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// The lock of a run of a job, which is held until drop.
#[cfg(feature = "policy")]
#[derive(Debug)]
pub(crate) struct JobLock {
    _directory: OwnedFd,
}

#[cfg(feature = "policy")]
impl JobLock {
    /// Takes the lock, or returns `None` if another job is running.
    ///
    /// # Errors
    /// Fails if the home cannot be opened, or if its file system has no such locks.
    pub(crate) fn try_take(paths: &HomePaths) -> io::Result<Option<Self>> {
        let directory = directory(&paths.home)?;
        for _ in 0..LOOKS {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _directory: directory })),
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Returns whether a process runs a job. Writes nothing.
    ///
    /// # Errors
    /// Fails if the home cannot be opened, or if its file system has no such locks.
    pub(crate) fn is_held(paths: &HomePaths) -> io::Result<bool> {
        match flock(&directory(&paths.home)?, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lock is seen for as long as one of those who hold it does.
    #[test]
    fn held_until_the_last_drop() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().to_owned());
        assert!(RunLock::is_held(&paths).is_err());
        std::fs::create_dir(&paths.db_dir).expect("a directory");
        let is_held = || RunLock::is_held(&paths).expect("an answer");
        assert!(!is_held());
        let locks = [RunLock::take(&paths).expect("the lock"), RunLock::take(&paths).expect("the lock")];
        for lock in locks {
            assert!(is_held());
            drop(lock);
        }
        assert!(!is_held());
    }

    /// One job at a time has the lock of jobs, and looking at it takes it from nobody.
    #[cfg(feature = "policy")]
    #[test]
    fn one_job_at_a_time() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = HomePaths::new(home.path().to_owned());
        let is_held = || JobLock::is_held(&paths).expect("an answer");
        let take = || JobLock::try_take(&paths).expect("an answer");
        assert!(!is_held());
        let lock = take().expect("the lock");
        assert!(is_held() && take().is_none());
        drop(lock);
        assert!(!is_held() && take().is_some());
    }
}
