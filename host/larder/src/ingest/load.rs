//! Archives and layouts into the cache.

use std::path::PathBuf;
use std::sync::Arc;

use super::bundle::{Bundle, Section};
use super::cancel::CancelOnDrop;
use super::convert::{Blobs, Work};
use super::error::IngestError;
use super::limits::IngestLimits;
use super::progress::Progress;
use super::publish::Publication;
use super::source::{SourceLayer, find_images};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::catalog::publish::NewOrigin;
use crate::error::MicrosandboxResult;
use crate::image::ImageHandle;
use crate::reference::Reference;

/// Taking in a `docker save` archive or an OCI image layout: what [`Image::load`](crate::Image::load) does, and with
/// more to be said about how.
///
/// ```no_run
/// # async fn example(local: &larder::LocalBackend) -> larder::MicrosandboxResult<()> {
/// let images = larder::ingest::ImageLoad::new("app.tar").tag("acme/app:1").run(local).await?;
/// # Ok(())
/// # }
/// ```
pub struct ImageLoad {
    input: PathBuf,
    tags: Vec<String>,
    limits: IngestLimits,
    progress: Option<Arc<dyn Progress>>,
}

impl ImageLoad {
    /// Of an archive or a directory, with the names that are in it.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self { input: input.into(), tags: Vec::new(), limits: IngestLimits::default(), progress: None }
    }

    /// Gives the image this name, in the place of those that are in the archive. Several may be given.
    pub fn tag(mut self, reference: impl Into<String>) -> Self {
        self.tags.push(reference.into());
        self
    }

    /// How much it may ask of this machine.
    pub fn limits(mut self, limits: IngestLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Who is told what happens.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Takes the images in, and gives each reference, in the order of the archive. See
    /// [`Image::load_local`](crate::Image::load_local).
    ///
    /// Dropped before it is done, it leaves the cache as it was.
    ///
    /// # Errors
    /// As [`Image::load_local`](crate::Image::load_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<Vec<ImageHandle>> {
        let tags = self.tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
        let catalog = Arc::clone(local.catalog());
        // A home that cannot be written is known before the work.
        catalog.write("open the index", |_, _| Ok(())).await?;
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let (publication, locks, images) = blocking("load images", move || {
            let publication = Publication::new(catalog)?;
            let bundle = Bundle::open(&self.input, &publication.temporary(), &self.limits)?;
            let found = find_images(&bundle, &tags, &self.limits)?;
            let work = Work {
                origin: bundle.name(),
                limits: &self.limits,
                progress: self.progress,
                cancelled: &cancelled,
                publication: &publication,
            };
            let images = work.artifacts(&found, &bundle)?;
            let locks = publication.describe(&found)?;
            Ok((publication, locks, images))
        })
        .await?;
        let now = local.now();
        let handles = local.catalog().write("add images", move |writer, _| {
            let handles = publication.commit(writer, &images, NewOrigin::Archive, now);
            drop(locks);
            handles
        });
        handles.await
    }
}

impl std::fmt::Debug for ImageLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageLoad")
            .field("input", &self.input)
            .field("tags", &self.tags)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Blobs for Bundle {
    fn open(&self, layer: &SourceLayer) -> Result<Section, IngestError> {
        self.get(&layer.blob)
    }
}
