//! An operator's tasks besides images: pins, verification, and a snapshot of the cache to decide on.

use std::sync::Arc;

use serde::Serialize;

pub use crate::artifacts::unowned::{UnownedFile, UnownedKind};
pub use crate::store::removal::{RemovedImage, SpareReason, SparedImage};
pub use crate::store::verify::{Finding, FindingKind, RepairOutcome, VerifyDepth, VerifyReport};

use crate::backend::LocalBackend;
use crate::catalog::journal::{self, Swept};
use crate::catalog::{CancelOnDrop, blocking, pins};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::snapshot::CacheSnapshot;
use crate::store::full_disk;
use crate::store::snapshot::HomeSnapshot;
use crate::store::verify::Verification;

/// The effect of a pin or an unpin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinChange {
    /// The image is newly pinned or unpinned.
    Changed,
    /// The image was already pinned or unpinned.
    Unchanged,
}

impl From<bool> for PinChange {
    fn from(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }
}

/// The maximum number of rows of each table that one transaction sweeps: few enough to keep nobody waiting.
const SWEPT_AT_ONCE: usize = 1000;

impl LocalBackend {
    /// Records the uses of images that microsandbox has made since the last time: boots of sandboxes, pulls and loads.
    /// Deletes records that are older than 400 days.
    ///
    /// microsandbox forgets them when the sandbox or the image is removed, so a service calls this regularly, for
    /// example each minute. The first change that a backend makes also records them, as many as it can in 20 ms. If
    /// nothing is new, this writes nothing. On a full disk it records nothing, and the next call does.
    ///
    /// # Errors
    /// Fails if the home cannot be written.
    pub async fn record_uses(&self) -> MicrosandboxResult<()> {
        let (action, now) = ("record how images were used", self.now());
        loop {
            let swept = self.store().write(action, move |writer, _| {
                if !writer.has_room() {
                    return Ok(Swept::All);
                }
                writer.change(action, |connection| {
                    journal::sweep(connection, now, SWEPT_AT_ONCE).map_err(MicrosandboxError::db(action))
                })
            });
            match swept.await {
                Ok(Swept::Part) => {}
                Ok(Swept::All) => return Ok(()),
                Err(error) if full_disk::is_full(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Pins an image: no prune and no policy removes it, and a removal only with `force`.
    ///
    /// The pin is for the normalized reference, so it also protects an image that is pulled under it later.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or an error if the home cannot be written.
    pub async fn pin(&self, reference: &str) -> MicrosandboxResult<PinChange> {
        let (reference, now) = (reference.to_owned(), self.now());
        self.store()
            .write("pin an image", move |writer, _| {
                writer.change("pin an image", |index| pins::pin(index, &reference, now))
            })
            .await
            .map(PinChange::from)
    }

    /// Removes the pin of an image, which need not be in the cache.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound) if there is neither a pin nor an image,
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or an error if the home cannot be written.
    pub async fn unpin(&self, reference: &str) -> MicrosandboxResult<PinChange> {
        let reference = reference.to_owned();
        self.store()
            .write("unpin an image", move |writer, _| {
                writer.change("unpin an image", |index| pins::unpin(index, &reference))
            })
            .await
            .map(PinChange::from)
    }

    /// Returns the normalized references that are pinned, sorted.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn pins(&self) -> MicrosandboxResult<Vec<String>> {
        self.store().read("list pins", pins::list).await
    }

    /// Returns a snapshot of the cache to decide on. It does not change while it is held.
    ///
    /// The snapshot holds a read transaction, which blocks no other process, but stops SQLite from shortening its log:
    /// drop it soon. Its methods block, and its drop may block.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn snapshot(&self) -> MicrosandboxResult<Box<dyn CacheSnapshot>> {
        let store = Arc::clone(self.store());
        blocking("look at the index", move || {
            Ok(Box::new(HomeSnapshot::open(&store)?) as Box<dyn CacheSnapshot>)
        })
        .await
    }

    /// Compares the index with the files, and reports missing files, damaged files, and files that no row owns. Writes
    /// nothing.
    ///
    /// Other processes may change the cache meanwhile. A missing or damaged file is checked again before it is
    /// reported, and is [skipped](VerifyReport::skipped) if a process reads, publishes or deletes it.
    /// [`plan_repair`](Self::plan_repair) makes a plan to delete the files that no row owns.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn verify(&self, depth: VerifyDepth) -> MicrosandboxResult<VerifyReport> {
        let cancel = CancelOnDrop::default();
        let (store, cancelled) = (Arc::clone(self.store()), Arc::clone(&cancel.0));
        blocking("verify the cache", move || {
            Verification { store: &store, depth, cancelled: &cancelled }.run()
        })
        .await
    }
}
