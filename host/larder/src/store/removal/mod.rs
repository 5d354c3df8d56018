//! Removing images: index first, files second, so that neither a crash nor a power cut loses anything.
//!
//! Images go in batches, each whole: its references, manifests, layers and files, in these steps ([`batch`]):
//!
//! 1. Ask the index what goes with these references, and claim every entry of that ([`super::lease`]), without
//!    waiting. An image of which an entry is busy is spared; the rest is asked for again without it.
//! 2. Look at the files: they are told from later ones of the same names by what is seen now.
//! 3. In one transaction: check that every image is still what it was and that nothing needs it, delete the rows,
//!    and record the files that nothing owns any longer (`larder_deletion`). It is on disk when it is committed.
//! 4. Delete the files, and release the claims.
//! 5. Some batches later: write the directories to disk, then forget the records ([`deletion`]).
//!
//! A crash before the commit of 3 leaves everything as it was; a crash after it leaves records, and the next open
//! for writing deletes what they name, if the index does not own it again and it is the file that was seen. A claim
//! is held from 1 until 4 is over, so nobody begins to use what is about to go.
//!
//! The writer is free between batches, and each transaction is as short as its batch is small.

mod batch;
mod deletion;

use std::collections::HashSet;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub(crate) use batch::Batch;
pub(crate) use deletion::{is_owned, metadata_keys, recover, unlink_now};

use super::{Entry, Room, collect, lease};
use crate::backend::LocalBackend;
use crate::catalog::change::{self, RefRow};
use crate::catalog::{read, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageUsers;
use crate::records::{ImageHandle, ImagePruneReport};

/// After so many deleted files their records are forgotten: seldom enough that syncing directories costs little.
const FORGET_AFTER: usize = 4096;

/// What protects an image from being removed, besides a live operation, which always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoveMode {
    /// Its users, and a pin.
    Unused,
    /// A pin. An image in use loses its reference, and its data stays.
    Untag,
    /// Nothing. As `Untag`, and the pin goes with the reference.
    Force,
}

/// What has to be as it was when a decision was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) manifest_digest: Option<String>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// A reference to remove.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) row: RefRow,
    pub(crate) mode: RemoveMode,
    pub(crate) seen: Option<Seen>,
}

/// A reference that is gone.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedImage {
    /// The reference.
    pub reference: String,
    /// The manifest that it named.
    pub manifest_digest: Option<String>,
    /// Allocated bytes of the files that went with it.
    pub bytes: u64,
}

/// Why an image that was to go was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpareReason {
    /// Something uses it.
    InUse(ImageUsers),
    /// The operator pinned it.
    Pinned,
    /// A live operation reads it, publishes it or deletes it.
    Leased,
    /// The reference names another manifest than when it was decided to remove it.
    Replaced,
    /// It was used after it was decided to remove it.
    Used,
}

impl std::fmt::Display for SpareReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(users) => write!(f, "used by {users}"),
            Self::Pinned => f.write_str("pinned"),
            Self::Leased => f.write_str("held by a live operation"),
            Self::Replaced => f.write_str("names another manifest than when this was decided"),
            Self::Used => f.write_str("was used after this was decided"),
        }
    }
}

impl Serialize for SpareReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An image that was to go and was left alone.
#[derive(Debug, Clone, Serialize)]
pub struct SparedImage {
    /// The reference.
    pub reference: String,
    /// Why.
    pub reason: SpareReason,
}

/// What became of a removal.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) removed: Vec<RemovedImage>,
    pub(crate) spared: Vec<SparedImage>,
    pub(crate) report: ImagePruneReport,
    /// What stood in the way without stopping the rest: one sentence each, with a path.
    pub(crate) problems: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.spared.extend(other.spared);
        self.problems.extend(other.problems);
        let (total, more) = (&mut self.report, other.report);
        total.image_refs_removed += more.image_refs_removed;
        total.manifests_removed += more.manifests_removed;
        total.layers_removed += more.layers_removed;
        total.fsmeta_removed += more.fsmeta_removed;
        total.vmdk_removed += more.vmdk_removed;
        total.skipped_in_use += more.skipped_in_use;
        self.add_bytes(more.bytes_reclaimed);
    }

    fn add_bytes(&mut self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            *self.report.bytes_reclaimed.get_or_insert(0) += bytes;
        }
    }
}

/// A removal under way: runs batches, and forgets the records of files that are gone.
pub(crate) struct Remover<'a> {
    local: &'a LocalBackend,
    outcome: Outcome,
    deleted: Vec<i64>,
}

impl<'a> Remover<'a> {
    pub(crate) fn new(local: &'a LocalBackend) -> Self {
        Self { local, outcome: Outcome::default(), deleted: Vec::new() }
    }

    /// Removes references, as many at a time as leases can be held.
    pub(crate) async fn remove(&mut self, targets: Vec<Target>) -> MicrosandboxResult<()> {
        let limit = lease::batch_size();
        let mut batch = Batch::default();
        for target in targets {
            let entries = batch::entries_of(&target);
            if !batch.is_empty() && batch.entries() + entries > limit {
                self.run(std::mem::take(&mut batch)).await?;
            }
            batch.push(target, entries);
        }
        self.run(batch).await
    }

    /// Removes manifests and layers that no reference needs. `only` restricts it to those with one of these files,
    /// relative to the cache.
    pub(crate) async fn sweep_rows(&mut self, only: Option<&HashSet<PathBuf>>) -> MicrosandboxResult<()> {
        let read = |connection: &rusqlite::Connection| -> rusqlite::Result<_> {
            roots::refresh(connection)?;
            Ok((change::unreached_manifests(connection)?, change::unreached_layers(connection)?))
        };
        let wanted = |entry: Entry| only.is_some_and(|only| only.contains(&entry.path()));
        let (mut manifests, _) = self.ask("find unused manifests", read).await?;
        manifests.retain(|row| only.is_none() || Entry::of_manifest(&row.digest).any(wanted));
        // A manifest that no reference names has no more layers than any other; 24 is a generous guess.
        for chunk in manifests.chunks((lease::batch_size() / 24).max(1)) {
            self.run(Batch::of_manifests(chunk.to_vec())).await?;
        }
        let (_, mut layers) = self.ask("find unused layers", read).await?;
        layers
            .retain(|row| only.is_none() || Entry::of_digest(Room::Layers, &row.digest).is_some_and(wanted));
        for chunk in layers.chunks(lease::batch_size()) {
            self.run(Batch::of_layers(chunk.to_vec())).await?;
        }
        Ok(())
    }

    /// Deletes files that nothing owns. `only` restricts it to these paths, relative to the cache.
    pub(crate) async fn collect(&mut self, only: Option<HashSet<PathBuf>>) -> MicrosandboxResult<()> {
        let now = self.local.now();
        let collected = self
            .local
            .catalog()
            .write("collect files that nothing owns", move |writer, cache| {
                collect::delete_unowned(writer.connection(), cache, now, only.as_ref())
            })
            .await?;
        let bytes: u64 = collected.removed.iter().map(|file| file.bytes).sum();
        self.outcome.add_bytes((!collected.removed.is_empty()).then_some(bytes));
        self.outcome.problems.extend(collected.problems);
        Ok(())
    }

    /// What became of it, and whether the records of the deleted files could be forgotten.
    pub(crate) async fn finish(mut self) -> (Outcome, MicrosandboxResult<()>) {
        let forgotten = self.forget().await;
        (self.outcome, forgotten)
    }

    async fn ask<T: Send + 'static>(
        &self,
        action: &'static str,
        question: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> MicrosandboxResult<T> {
        let ask = move |writer: &mut crate::catalog::Writer, _: &_| {
            question(writer.connection()).map_err(MicrosandboxError::db(action))
        };
        self.local.catalog().write(action, ask).await
    }

    async fn run(&mut self, batch: Batch) -> MicrosandboxResult<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let done = self
            .local
            .catalog()
            .write("remove images", move |writer, cache| batch.run(writer, cache))
            .await?;
        self.outcome.add(done.outcome);
        self.deleted.extend(done.deleted);
        if self.deleted.len() >= FORGET_AFTER {
            self.forget().await?;
        }
        Ok(())
    }

    async fn forget(&mut self) -> MicrosandboxResult<()> {
        let deleted = std::mem::take(&mut self.deleted);
        if deleted.is_empty() {
            return Ok(());
        }
        let forget =
            move |writer: &mut crate::catalog::Writer, cache: &_| deletion::forget(writer, cache, &deleted);
        self.local.catalog().write("forget deleted files", forget).await
    }
}

/// Removes one image, or says why not.
pub(crate) async fn remove_image(
    local: &LocalBackend,
    reference: &str,
    mode: RemoveMode,
) -> MicrosandboxResult<()> {
    let wanted = reference.to_owned();
    let row = local
        .catalog()
        .write("look an image up", move |writer, _| find_spelled(writer.connection(), &wanted))
        .await?;
    let mut remover = Remover::new(local);
    remover.remove(vec![Target { row, mode, seen: None }]).await?;
    let (outcome, forgotten) = remover.finish().await;
    forgotten?;
    match outcome.spared.into_iter().next() {
        None if outcome.removed.is_empty() => Err(MicrosandboxError::ImageNotFound(reference.to_owned())),
        None => Ok(()),
        Some(SparedImage { reference, reason }) => {
            Err(MicrosandboxError::ImageInUse(format!("`{reference}` is {reason}")))
        }
    }
}

/// Removes everything that nothing uses.
pub(crate) async fn prune_unused(local: &LocalBackend) -> MicrosandboxResult<ImagePruneReport> {
    let find = |writer: &mut crate::catalog::Writer, _: &_| {
        let connection = writer.connection();
        roots::refresh(connection)
            .and_then(|()| change::unused_refs(connection))
            .map_err(MicrosandboxError::db("find unused images"))
    };
    let rows = local.catalog().write("find unused images", find).await?;
    let targets = rows.into_iter().map(|row| Target { row, mode: RemoveMode::Unused, seen: None }).collect();
    let mut remover = Remover::new(local);
    remover.remove(targets).await?;
    remover.sweep_rows(None).await?;
    remover.collect(None).await?;
    let (outcome, forgotten) = remover.finish().await;
    for problem in &outcome.problems {
        tracing::warn!("{problem}");
    }
    forgotten.map(|()| outcome.report)
}

/// The row of a reference: as it stands, or in another spelling of the same.
pub(crate) fn find_spelled(connection: &rusqlite::Connection, reference: &str) -> MicrosandboxResult<RefRow> {
    let find = |spelling: &str| {
        change::find_ref(connection, spelling).map_err(MicrosandboxError::db("look an image up"))
    };
    read::in_any_spelling(reference, find)
}

impl Seen {
    /// What an image looks like now.
    pub(crate) fn of(handle: &ImageHandle) -> Self {
        Self { manifest_digest: handle.manifest_digest.clone(), last_used_at: handle.last_used_at }
    }
}
