//! Making room for a change on a disk that is full.
//!
//! Removing has to write before it deletes: the log of the index, what is on record, the files of locks that were never
//! taken. Where a change of a removal finds no room for that, room is made step by step, and the change is run again
//! after each step that made some:
//!
//! 1. The log of the index is emptied into the index, as far as others let it.
//! 2. What needs no new byte goes: unfinished work that the plan deletes, under the locks of its name. Where the index
//!    can be read as others change it, so does all else that the plan collects.
//! 3. The ballast is given up ([`ballast`]).
//!
//! Where nothing is left to give up, the error says how many bytes are needed where. A change that is no removal gives
//! up nothing: the ballast is there for the clean-up.
//!
//! # What survives a crash
//! Each step is whole by itself. A ballast that was given up is made again at the end of the next clean-up, or by the
//! next process that changes the home, where there is room.

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

/// What can be given up for the changes of one removal.
pub(crate) struct FullDisk {
    store: Arc<Store>,
    /// Files that the removal deletes anyhow; absent when that was tried.
    files: Option<Vec<UnownedFile>>,
    has_ballast: bool,
    was_full: bool,
    /// What was deleted to make room.
    pub(crate) collected: Collected,
}

/// What was tried for one change.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    has_emptied_log: bool,
}

/// Returns whether an error says that a disk is full.
pub(crate) fn is_full(error: &MicrosandboxError) -> bool {
    match error {
        MicrosandboxError::Home(HomeError { problem, .. }) => matches!(problem, HomeProblem::Full { .. }),
        MicrosandboxError::Io { source, .. } => is_storage_full(source),
        _ => false,
    }
}

/// Returns whether the operating system says so.
pub(crate) fn is_storage_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl FullDisk {
    /// For a removal that deletes these files of the cache, which nothing owns.
    pub(crate) fn new(store: &Arc<Store>, files: Vec<UnownedFile>) -> Self {
        let files = (!files.is_empty()).then_some(files);
        let collected = Collected::default();
        Self { store: Arc::clone(store), files, has_ballast: true, was_full: false, collected }
    }

    /// Returns whether a change found the disk full.
    pub(crate) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Runs a change, again after each step that made room for it.
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

    /// Makes some room. Returns whether there was anything left to give up.
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

    /// Moves the log into the index and makes it short. Returns whether it became shorter.
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

    /// Deletes what needs no writer. Returns whether anything went.
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
    /// Makes the ballast again after a removal, where there is room for it.
    pub(crate) async fn keep_ballast(&self) {
        let paths = self.catalog().paths().clone();
        let keep = move || ballast::keep(&paths).map_err(MicrosandboxError::io("make", &paths.ballast));
        if let Err(error) = blocking("make the ballast", keep).await {
            tracing::warn!("{error}");
        }
    }
}
