//! Making room for a change on a disk that is full.
//!
//! A removal has to write before it deletes: the log of the index, the record of the run, and the files of locks that
//! were never taken. If a change of a removal finds no room for that, room is made step by step. The change runs again
//! after each step that made room:
//!
//! 1. The log of the index is emptied into the index, as far as other connections allow.
//! 2. Files whose deletion writes nothing are deleted: unfinished work in the plan, under the locks of its name. If the
//!    reader sees later changes by other processes, everything else that the plan collects is deleted, too.
//! 3. The ballast is deleted ([`ballast`]).
//!
//! If nothing is left to free, the error states the needed bytes and the file system. A change that is not a removal
//! frees nothing: the ballast is reserved for the clean-up.
//!
//! # What survives a crash
//! Each step is complete by itself. A deleted ballast is created again at the end of the next clean-up, or by the next
//! process that changes the home, if there is room.

use std::fs;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::gc::{self, Collected};
use crate::artifacts::unowned::UnownedFile;
use crate::catalog::{Writer, blocking};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{BUSY_TIMEOUT, HomeError, HomeProblem, ballast};

/// The files that can be deleted early for the changes of one removal.
pub(crate) struct FullDisk {
    store: Arc<Store>,
    /// The files that the removal deletes in any case. Absent after they were tried.
    files: Option<Vec<UnownedFile>>,
    has_ballast: bool,
    was_full: bool,
    /// The files that were deleted to make room.
    pub(crate) collected: Collected,
}

/// The steps that were tried for one change.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    has_emptied_log: bool,
}

/// Returns whether an error means that a disk is full.
pub(crate) fn is_full(error: &MicrosandboxError) -> bool {
    match error {
        MicrosandboxError::Home(HomeError { problem, .. }) => matches!(problem, HomeProblem::Full { .. }),
        MicrosandboxError::Io { source, .. } => is_storage_full(source),
        _ => false,
    }
}

/// Returns whether an error of the operating system means that a disk is full.
pub(crate) fn is_storage_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl FullDisk {
    /// Makes the state for a removal that deletes these files of the cache, which no row owns.
    pub(crate) fn new(store: &Arc<Store>, files: Vec<UnownedFile>) -> Self {
        let files = (!files.is_empty()).then_some(files);
        let collected = Collected::default();
        Self { store: Arc::clone(store), files, has_ballast: true, was_full: false, collected }
    }

    /// Returns whether a change found the disk full.
    pub(crate) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Runs a change, and runs it again after each step that made room for it.
    pub(crate) async fn run<T, F>(&mut self, mut change: impl FnMut() -> F) -> MicrosandboxResult<T>
    where
        F: Future<Output = MicrosandboxResult<T>>,
    {
        let mut tried = Tried::default();
        loop {
            match change().await {
                Err(error) if is_full(&error) && self.make_room(&mut tried).await? => {}
                result => return result,
            }
        }
    }

    /// Makes some room. Returns whether there was anything left to free.
    pub(crate) async fn make_room(&mut self, tried: &mut Tried) -> MicrosandboxResult<bool> {
        self.was_full = true;
        if !std::mem::replace(&mut tried.has_emptied_log, true) && self.empty_log().await {
            return Ok(true);
        }
        if let Some(files) = self.files.take()
            && self.collect(files).await?
        {
            return Ok(true);
        }
        if !std::mem::take(&mut self.has_ballast) {
            return Ok(false);
        }
        let paths = self.store.catalog().paths().clone();
        let give_up =
            move || ballast::give_up(&paths).map_err(MicrosandboxError::io("delete", &paths.ballast));
        blocking("give up the ballast", give_up).await
    }

    /// Moves the log into the index and shortens it. Returns whether it became shorter.
    async fn empty_log(&self) -> bool {
        let log = self.store.catalog().paths().db_dir.join("msb.db-wal");
        let length = move || fs::metadata(&log).map_or(0, |file| file.len());
        let empty = move |writer: &mut Writer, _: &_| {
            let before = length();
            let connection = writer.connection();
            // Nobody is waited for: who reads the log goes on reading it.
            connection.busy_timeout(Duration::ZERO).map_err(MicrosandboxError::db("empty the log"))?;
            let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            connection.busy_timeout(BUSY_TIMEOUT).map_err(MicrosandboxError::db("empty the log"))?;
            Ok(emptied.is_ok() && length() < before)
        };
        // A writer that cannot be opened on this disk has no log to be emptied.
        self.store.write_on("empty the log", empty).await.unwrap_or(false)
    }

    /// Deletes files without the writer. Returns whether any file was deleted.
    async fn collect(&mut self, files: Vec<UnownedFile>) -> MicrosandboxResult<bool> {
        let store = Arc::clone(&self.store);
        let collect = move || {
            let reader = store.catalog().reader()?;
            store.catalog().check_fit(&reader)?;
            let now = store.now();
            if !reader.sees_changes() {
                return gc::delete_work(&reader, store.cache(), now, files);
            }
            let paths: std::collections::HashSet<PathBuf> = files.into_iter().map(|file| file.path).collect();
            gc::delete_unowned(&reader, store.cache(), now, &paths)
        };
        let collected = blocking("make room", collect).await?;
        let any = !collected.removed.is_empty();
        self.collected = collected;
        Ok(any)
    }
}

impl Store {
    /// Creates the ballast again after a removal, if there is room for it.
    pub(crate) async fn keep_ballast(&self) {
        let paths = self.catalog().paths().clone();
        let keep = move || ballast::keep(&paths).map_err(MicrosandboxError::io("make", &paths.ballast));
        if let Err(error) = blocking("make the ballast", keep).await {
            tracing::warn!("{error}");
        }
    }
}
