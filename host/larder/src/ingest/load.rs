//! Loading archives and layouts into the cache.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::blobs::Blobs;
use super::bundle::Bundle;
use super::error::IngestError;
use super::input::Input;
use super::intake::Intake;
use super::layer::BlobSource;
use super::limits::IngestLimits;
use super::platform::Platform;
use super::progress::{LayerStep, Progress, ProgressEvent};
use super::publish::Publication;
use super::room::MakeRoom;
use super::source::{NewName, Selection, Skipped, SourceLayer, Wanted, find_images};
use crate::backend::LocalBackend;
use crate::catalog::publish::NewOrigin;
use crate::error::MicrosandboxResult;
use crate::records::ImageHandle;

/// A load of a `docker save` archive or an OCI image layout: the work of [`Image::load`](crate::Image::load), with
/// more settings.
///
/// ```no_run
/// # async fn example(local: &larder::LocalBackend) -> larder::MicrosandboxResult<()> {
/// let images = larder::ingest::ImageLoad::new("app.tar").tag("acme/app:1").run(local).await?;
/// # Ok(())
/// # }
/// ```
pub struct ImageLoad {
    input: Input,
    tags: Vec<String>,
    selections: Vec<String>,
    platform: Platform,
    limits: IngestLimits,
    progress: Option<Arc<dyn Progress>>,
    room: Option<Arc<dyn MakeRoom>>,
}

impl ImageLoad {
    /// Makes a load of an archive or a directory, with the names in it.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self::of(Input::Path(input.into()))
    }

    /// Makes a load of an archive in an open file, which may be a pipe. Errors call it by `name`, such as `standard
    /// input`. A regular file that is at its beginning and not compressed is read where it is; anything else is copied to
    /// a file without a name in the cache first.
    pub fn from_file(name: &str, file: File) -> Self {
        Self::of(Input::File { name: name.to_owned(), file })
    }

    /// Makes a load of an archive that is read to its end, and copied to a file without a name in the cache first.
    /// Errors call it by `name`. A thread of its own reads, which ends with the reader, even if the future is dropped
    /// before.
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static) -> Self {
        Self::of(Input::Reader { name: name.to_owned(), reader: Box::new(reader) })
    }

    fn of(input: Input) -> Self {
        Self {
            input,
            tags: Vec::new(),
            selections: Vec::new(),
            platform: Platform::of_this_machine(),
            limits: IngestLimits::default(),
            progress: None,
            room: None,
        }
    }

    /// Sets this name for the image instead of those in the archive. It can be called several times.
    ///
    /// A name with a tag or a digest is for one image. A name without is a repository: each image keeps the tags that it has in the
    /// archive, and an only image without a tag is `latest`.
    pub fn tag(mut self, reference: impl Into<String>) -> Self {
        self.tags.push(reference.into());
        self
    }

    /// Loads only this image of the archive: a name in it, a tag, or the digest of a manifest or config, of which twelve hex
    /// digits suffice. It can be called several times. An image that is chosen by a name gets no other name of the archive.
    pub fn select(mut self, image: impl Into<String>) -> Self {
        self.selections.push(image.into());
        self
    }

    /// Sets the platform of the images, instead of that of this machine.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the limits on the resources that the load may use.
    pub fn limits(mut self, limits: IngestLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the receiver of progress.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Makes room for the load before its first byte, by this, and fails if there is none. Without it, a load that does not
    /// fit fails when the disk is full.
    pub fn make_room(mut self, room: Arc<dyn MakeRoom>) -> Self {
        self.room = Some(room);
        self
    }

    /// Loads the images, and returns each reference, in the order of the archive. See
    /// [`Image::load_local`](crate::Image::load_local).
    ///
    /// Images are added in the order of the archive, each when it is complete. Dropping the future before it is done leaves the
    /// images that were added, and nothing else. What is left out of the archive, because it has no name, is told to the receiver
    /// of progress.
    ///
    /// # Errors
    /// The same as [`Image::load_local`](crate::Image::load_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<Vec<ImageHandle>> {
        let names = self.tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<NewName>, _>>()?;
        let selections = self.selections.into_iter().map(Selection::from).collect();
        let wanted = Wanted { platform: self.platform, selections, names };
        let Self { input, limits, progress, room, .. } = self;
        let told = progress.clone();
        let intake = Intake { origin: NewOrigin::Archive, limits, progress, room };
        let find = move |publication: &Publication, limits: &IngestLimits| {
            let cancelled = Arc::clone(publication.cancelled());
            let bundle = Bundle::open(input, &publication.temporary(), limits, cancelled)?;
            let found = find_images(&bundle, &wanted, limits)?;
            for Skipped { image, why } in &found.skipped {
                told.iter().for_each(|told| told.event(ProgressEvent::ImageSkipped { image, why }));
            }
            Ok((bundle, found.images))
        };
        intake.run(local, find).await
    }
}

impl std::fmt::Debug for ImageLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageLoad")
            .field("input", &self.input)
            .field("tags", &self.tags)
            .field("selections", &self.selections)
            .field("platform", &self.platform)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The maximum number of layers at a time. More gain nothing, and each has its buffers.
const MAX_THREADS: usize = 8;

impl Blobs for Bundle {
    const STEP: LayerStep = LayerStep::Convert;

    fn origin(&self) -> &str {
        self.name()
    }

    fn concurrency(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
    }

    fn open(&self, layer: &SourceLayer) -> Result<BlobSource, IngestError> {
        let section = self.sized(self.get(&layer.blob)?, &layer.digest, layer.size)?;
        Ok(Box::new(section.reader()))
    }

    fn check_size(&self, layer: &SourceLayer) -> Result<(), IngestError> {
        self.sized(self.get(&layer.blob)?, &layer.digest, layer.size).map(drop)
    }

    fn part(&self, layer: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>> {
        self.get(&layer.blob).ok()?.part(offset, length).ok()
    }
}
