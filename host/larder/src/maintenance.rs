//! What an operator asks of a home besides its images: pins, verification, and one state of it to decide on.

use std::sync::Arc;

use serde::Serialize;

pub use crate::artifacts::unowned::{UnownedFile, UnownedKind};
pub use crate::store::removal::{RemovedImage, SpareReason, SparedImage};
pub use crate::store::verify::{Finding, FindingKind, RepairOutcome, VerifyDepth, VerifyReport};

use crate::backend::LocalBackend;
use crate::catalog::{blocking, pins};
use crate::error::MicrosandboxResult;
use crate::ingest::cancel::CancelOnDrop;
use crate::snapshot::CacheSnapshot;
use crate::store::snapshot::HomeSnapshot;
use crate::store::verify::Verification;

/// What a pin or an unpin changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinChange {
    /// The image is pinned now, or no longer.
    Changed,
    /// It was so already.
    Unchanged,
}

impl From<bool> for PinChange {
    fn from(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }
}

impl LocalBackend {
    /// Pins an image: neither a prune nor a policy removes it, and a removal only with `force`.
    ///
    /// The pin holds the normalized reference, so it holds for what is pulled under it later, too.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or where the home cannot be written.
    pub async fn pin(&self, reference: &str) -> MicrosandboxResult<PinChange> {
        let (reference, now) = (reference.to_owned(), self.now());
        self.store()
            .write("pin an image", move |writer, _| {
                writer.change("pin an image", |index| pins::pin(index, &reference, now))
            })
            .await
            .map(PinChange::from)
    }

    /// Takes the pin of an image away; that of one that is not in the cache, too.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound) where there is neither a pin nor an image,
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or where the home cannot be written.
    pub async fn unpin(&self, reference: &str) -> MicrosandboxResult<PinChange> {
        let reference = reference.to_owned();
        self.store()
            .write("unpin an image", move |writer, _| {
                writer.change("unpin an image", |index| pins::unpin(index, &reference))
            })
            .await
            .map(PinChange::from)
    }

    /// The normalized references that are pinned, sorted.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn pins(&self) -> MicrosandboxResult<Vec<String>> {
        self.store().read("list pins", pins::list).await
    }

    /// One state of the cache, to decide on: it does not change while the result lives.
    ///
    /// It holds a read transaction, which makes nobody wait, but keeps SQLite's log from being cut: let it go soon. Its
    /// methods block, and so may dropping it.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn snapshot(&self) -> MicrosandboxResult<Box<dyn CacheSnapshot>> {
        let store = Arc::clone(self.store());
        blocking("look at the index", move || {
            Ok(Box::new(HomeSnapshot::open(&store)?) as Box<dyn CacheSnapshot>)
        })
        .await
    }

    /// Compares the index with the files: what is missing, what is damaged, what nothing owns. Writes nothing.
    ///
    /// Others may change the cache meanwhile: what is missing or damaged is looked at again before it is called so, and
    /// what somebody reads, publishes or deletes then is [skipped](VerifyReport::skipped).
    /// [`plan_repair`](Self::plan_repair) makes a plan of what nothing owns.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn verify(&self, depth: VerifyDepth) -> MicrosandboxResult<VerifyReport> {
        let cancel = CancelOnDrop::default();
        let (store, cancelled) = (Arc::clone(self.store()), Arc::clone(&cancel.0));
        blocking("verify the cache", move || {
            Verification { store: &store, depth, cancelled: &cancelled }.run()
        })
        .await
    }
}
