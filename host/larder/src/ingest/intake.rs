//! The common part of load and pull: find the images, make their artifacts, add them to the index.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::account::Spent;
use super::convert::{Blobs, Work};
use super::limits::IngestLimits;
use super::progress::Progress;
use super::publish::Publication;
use super::room::{self, MakeRoom};
use super::source::NamedImage;
use crate::artifacts::CacheDir;
use crate::backend::LocalBackend;
use crate::catalog::publish::NewOrigin;
use crate::catalog::{CancelOnDrop, Writer, blocking};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageHandle;
use crate::store::keeper;

/// The settings for a load or pull.
pub(super) struct Intake {
    pub(super) origin: NewOrigin,
    pub(super) limits: IngestLimits,
    pub(super) progress: Option<Arc<dyn Progress>>,
    /// What makes room before the first byte.
    pub(super) room: Option<Arc<dyn MakeRoom>>,
}

/// Images that were found, and what they are taken in with.
struct Taken<B> {
    publication: Publication,
    blobs: B,
    images: Vec<NamedImage>,
    limits: IngestLimits,
    spent: Spent,
    progress: Option<Arc<dyn Progress>>,
    cancelled: Arc<AtomicBool>,
}

impl<B: Blobs> Taken<B> {
    fn work(&self) -> Work<'_> {
        Work {
            origin: self.blobs.origin(),
            limits: &self.limits,
            spent: &self.spent,
            progress: self.progress.clone(),
            cancelled: &self.cancelled,
            publication: &self.publication,
        }
    }
}

impl Intake {
    /// Adds the images that `find` returns to the cache, and returns each reference in their order. Blocking work
    /// runs on a thread that may block. Dropping the future before it is done leaves the cache unchanged.
    pub(super) async fn run<B: Blobs + Send + 'static>(
        self,
        local: &LocalBackend,
        find: impl FnOnce(&Publication, &IngestLimits) -> MicrosandboxResult<(B, Vec<NamedImage>)>
        + Send
        + 'static,
    ) -> MicrosandboxResult<Vec<ImageHandle>> {
        let store = Arc::clone(local.store());
        // A home that cannot be written is known before the work, and another home whose cache it is knows of it.
        let checked = Arc::clone(&store);
        let enter = move |writer: &mut Writer, cache: &CacheDir| {
            // What is added below a mount point is hidden by the disk, and would make it look like the cache.
            checked.check_cache(writer.connection())?;
            let entered = keeper(writer.connection(), cache)?.enter();
            entered.map_err(MicrosandboxError::io("mark", cache.root()))
        };
        if let Some(room) = &self.room {
            // Even to open the index for writing takes a little.
            room::make_little(room, local).await?;
        }
        store.write("open the index", enter).await?;
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let Self { origin, limits, progress, room } = self;
        let wants_room = room.is_some();
        let found = blocking("find images", move || {
            let publication = Publication::new(store, Arc::clone(&cancelled))?;
            let (blobs, images) = find(&publication, &limits)?;
            let spent = Spent::default();
            let taken = Taken { publication, blobs, images, limits, spent, progress, cancelled };
            let needed = if wants_room { taken.work().needed(&taken.images, &taken.blobs)? } else { None };
            Ok((taken, needed))
        });
        let (taken, needed) = found.await?;
        if let (Some(room), Some(needed)) = (room, needed) {
            room::make(&room, local, taken.blobs.origin(), needed).await?;
        }
        let (publication, locks, images, cost) = blocking("take images in", move || {
            let images = taken.work().artifacts(&taken.images, &taken.blobs)?;
            let locks = taken.publication.describe(&taken.images)?;
            let cost = taken.blobs.cost();
            Ok((taken.publication, locks, images, cost))
        })
        .await?;
        let now = local.now();
        let handles = local.store().write("add images", move |writer, _| {
            let handles = publication.commit(writer, &images, origin, cost, now);
            drop(locks);
            handles
        });
        handles.await
    }
}
