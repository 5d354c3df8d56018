//! The common part of load and pull: find the images, make their artifacts, add them to the index.

use std::sync::Arc;

use super::convert::{Blobs, Work};
use super::limits::IngestLimits;
use super::progress::Progress;
use super::publish::Publication;
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
}

impl Intake {
    /// Adds the images that `find` returns to the cache, and returns each reference in their order. Blocking work
    /// runs on a thread that may block. Dropping the future before it is done leaves the cache unchanged.
    pub(super) async fn run<B: Blobs>(
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
        store.write("open the index", enter).await?;
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let Self { origin, limits, progress } = self;
        let (publication, locks, images, cost) = blocking("take images in", move || {
            let publication = Publication::new(store, Arc::clone(&cancelled))?;
            let (blobs, found) = find(&publication, &limits)?;
            let work = Work {
                origin: blobs.origin(),
                limits: &limits,
                progress,
                cancelled: &cancelled,
                publication: &publication,
            };
            let images = work.artifacts(&found, &blobs)?;
            let locks = publication.describe(&found)?;
            Ok((publication, locks, images, blobs.cost()))
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
