//! The common part of load and pull: find the images, make their artifacts, add them to the index.
//!
//! Images are added one by one, each in a transaction of its own. The caller holds nobody up while it waits for the index
//! at that point, so it waits much longer for another program that changes it than any other change does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::account::Spent;
use super::blobs::Blobs;
use super::limits::IngestLimits;
use super::progress::{Progress, ProgressEvent};
use super::publish::{OnFailure, Publication};
use super::room::{self, MakeRoom};
use super::source::NamedImage;
use super::work::{Layers, Work, batches};
use crate::artifacts::{CacheDir, Entry};
use crate::backend::LocalBackend;
use crate::catalog::publish::{NewImage, NewOrigin};
use crate::catalog::{CancelOnDrop, Writer, blocking};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::HomeProblem;
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

/// A load or pull that has found its images.
struct Call<B> {
    publication: Publication,
    blobs: B,
    limits: IngestLimits,
    spent: Spent,
    progress: Option<Arc<dyn Progress>>,
    cancelled: Arc<AtomicBool>,
}

impl<B: Blobs> Call<B> {
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

    /// Makes the layers of a batch, and joins the other images whose layers were made again.
    fn layers(&self, images: &[NamedImage]) -> Layers {
        let work = self.work();
        let mut layers = work.layers(images, &self.blobs);
        if let Err(error) = work.rejoin(std::mem::take(&mut layers.dependents), images) {
            layers.failure.get_or_insert(error);
        }
        layers
    }

    /// Makes the files of an image beside its layers.
    fn image(&self, named: &NamedImage, layers: &Layers) -> MicrosandboxResult<NewImage> {
        let image = self.work().image(named, layers)?;
        self.publication.describe(named)?;
        Ok(image)
    }
}

impl Intake {
    /// Adds the images that `find` returns to the cache, and returns each reference in their order. Blocking work
    /// runs on a thread that may block. Dropping the future before it is done leaves the images that were added.
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
        let on_failure = match origin {
            NewOrigin::Archive => OnFailure::TakeBack,
            #[cfg(feature = "registry")]
            NewOrigin::Registry => OnFailure::Keep,
        };
        let found = blocking("find images", move || {
            let publication = Publication::new(store, on_failure, Arc::clone(&cancelled))?;
            let (blobs, images) = find(&publication, &limits)?;
            let spent = Spent::default();
            let call = Call { publication, blobs, limits, spent, progress, cancelled };
            let needed = if wants_room { call.work().needed(&images, &call.blobs)? } else { None };
            let batches = batches(images).map_err(|problem| call.work().fail(problem))?;
            Ok((Arc::new(call), batches, needed))
        });
        let (call, batches, needed) = found.await?;
        let guard = Undoing(Some(Arc::clone(&call)));
        let added = async move {
            if let (Some(room), Some(needed)) = (room, needed) {
                room::make(&room, local, call.blobs.origin(), needed).await?;
            }
            add_all(&call, local, batches, origin).await
        };
        let added = added.await;
        guard.finish().await?;
        drop(cancel);
        added
    }
}

/// The end of a call, which undoes what was not added: off the async runtime, since that deletes files. Dropped last.
struct Undoing<B: Blobs + Send + 'static>(Option<Arc<Call<B>>>);

impl<B: Blobs + Send + 'static> Undoing<B> {
    async fn finish(mut self) -> MicrosandboxResult<()> {
        let call = self.0.take();
        blocking("undo what was not added", move || {
            drop(call);
            Ok(())
        })
        .await
    }
}

impl<B: Blobs + Send + 'static> Drop for Undoing<B> {
    fn drop(&mut self) {
        let Some(call) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(call))),
            // Nobody runs tasks here that it could hold up.
            Err(_) => drop(call),
        }
    }
}

/// Makes and adds images, batch by batch.
async fn add_all<B: Blobs + Send + 'static>(
    call: &Arc<Call<B>>,
    local: &LocalBackend,
    batches: Vec<Vec<NamedImage>>,
    origin: NewOrigin,
) -> MicrosandboxResult<Vec<ImageHandle>> {
    let mut handles = Vec::new();
    for batch in batches {
        let (making, batch) = (Arc::clone(call), Arc::new(batch));
        let images = Arc::clone(&batch);
        let mut layers = blocking("make layers", move || Ok(making.layers(&images))).await?;
        let failure = layers.failure.take();
        let layers = Arc::new(layers);
        for (place, named) in batch.iter().enumerate() {
            if !named.image.layers.iter().all(|layer| layers.done.contains_key(&layer.diff_id)) {
                break;
            }
            let (making, images, done) = (Arc::clone(call), Arc::clone(&batch), Arc::clone(&layers));
            let image = blocking("join layers", move || making.image(&images[place], &done)).await?;
            handles.extend(add(call, local, image, origin).await?);
        }
        call.publication.release_all();
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(handles)
}

/// The number of times that the index is waited for, each as long as any other change waits for it.
const ATTEMPTS: u32 = 8;

/// Adds the rows of an image to the index, and waits for another program that changes it.
async fn add<B: Blobs + Send + 'static>(
    call: &Arc<Call<B>>,
    local: &LocalBackend,
    image: NewImage,
    origin: NewOrigin,
) -> MicrosandboxResult<Vec<ImageHandle>> {
    let image = Arc::new(image);
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let (call, image, now) = (Arc::clone(call), Arc::clone(&image), local.now());
        let adding = Arc::clone(&call);
        let added = local.store().write("add images", move |writer, _| {
            let handles = adding.publication.commit(writer, &image, origin, adding.blobs.cost(), now)?;
            let own = Entry::joined(&image.manifest).into_iter();
            let names = image.references.iter().map(Entry::metadata);
            adding.publication.release(&own.chain(names).collect::<Vec<_>>());
            Ok(handles)
        });
        match added.await {
            Err(error) if left > 0 && is_busy(&error) => call.work().tell(ProgressEvent::WaitingForIndex),
            added => {
                for handle in added.iter().flatten() {
                    let (reference, manifest) = (handle.reference(), handle.manifest_digest());
                    let manifest_digest = manifest.unwrap_or_default();
                    call.work().tell(ProgressEvent::ImageAdded { reference, manifest_digest });
                }
                return added;
            }
        }
    }
}

/// Returns whether another program was changing the index, and will have done so.
fn is_busy(error: &MicrosandboxError) -> bool {
    let MicrosandboxError::Home(error) = error else { return false };
    matches!(error.problem, HomeProblem::Locked | HomeProblem::Installing(_))
}
