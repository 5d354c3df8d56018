//! Converting the layers of images in parallel.
//!
//! Images are worked on in batches, so that leases are held on a bounded number of layers at a time. When a layer fails, no other
//! begins; the images before its own, whose layers have begun, are completed and added all the same. The layers of an only image end
//! at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::account::Spent;
use super::error::{IngestError, IngestProblem};
use super::join::Dependents;
use super::layer::{BlobSource, Converted, LayerBlob, Watch, convert};
use super::limits::IngestLimits;
use super::progress::{LayerOutcome, LayerStep, Meter, Progress, ProgressEvent};
use super::publish::Publication;
use super::room;
use super::source::{NamedImage, SourceLayer};
use crate::artifacts::{Entry, Room, lease};
use crate::catalog::journal::PullCost;
use crate::catalog::publish::has_layer;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

/// A source of the blobs of layers.
pub(crate) trait Blobs: Sync {
    /// The step of a blob until it is an EROFS image.
    const STEP: LayerStep;

    /// Returns the path or reference that the blobs belong to, for errors.
    fn origin(&self) -> &str;

    /// Returns the maximum number of layers that are processed at a time.
    fn concurrency(&self) -> usize;

    /// Opens the blob of a layer that the cache does not have. The blob is as long as the layer states, or reading it
    /// fails.
    fn open(&self, layer: &SourceLayer) -> Result<BlobSource, IngestError>;

    /// Refuses a layer whose blob is known to have another size than is stated.
    fn check_size(&self, _: &SourceLayer) -> Result<(), IngestError> {
        Ok(())
    }

    /// Returns a part of the blob of a layer, without the rest. `None` if that cannot be had, or fails.
    fn part(&self, layer: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>>;

    /// Ends all reading, of blobs that were opened and of those that would be, with an error.
    fn stop(&self) {}

    /// Returns the cost so far, if blobs of layers came over the network.
    fn cost(&self) -> Option<PullCost> {
        None
    }
}

/// The parameters of a call.
pub(crate) struct Work<'a> {
    /// The path or reference of the images.
    pub(crate) origin: &'a str,
    pub(crate) limits: &'a IngestLimits,
    pub(crate) spent: &'a Spent,
    pub(crate) progress: Option<Arc<dyn Progress>>,
    pub(crate) cancelled: &'a AtomicBool,
    pub(crate) publication: &'a Publication,
}

/// A layer whose artifact is in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DoneLayer {
    /// The length of the artifact, in bytes.
    pub(crate) length: u64,
    /// Whether this call made it.
    pub(crate) is_new: bool,
}

/// The layers of a batch.
pub(crate) struct Layers {
    /// Those that are in place, by diff ID.
    pub(crate) done: HashMap<Digest, DoneLayer>,
    /// The first failure. The layers that had not begun then are missing.
    pub(crate) failure: Option<MicrosandboxError>,
    /// The other images that have to be joined again.
    pub(crate) dependents: Dependents,
}

impl Work<'_> {
    /// Makes the layers of these images that the cache does not have, and holds the leases of all.
    pub(crate) fn layers(&self, images: &[NamedImage], blobs: &impl Blobs) -> Layers {
        let layers = distinct(images);
        let threads = blobs.concurrency().min(layers.len());
        let next = AtomicUsize::new(0);
        let done: Mutex<HashMap<Digest, DoneLayer>> = Mutex::default();
        let dependents: Mutex<Dependents> = Mutex::default();
        let failure: Mutex<Option<MicrosandboxError>> = Mutex::default();
        let is_only = images.len() == 1;
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if locked(&failure).is_some() || self.cancelled.load(Ordering::Relaxed) {
                    return;
                }
                match self.layer(layer, blobs, &dependents) {
                    Ok(made) => drop(locked(&done).insert(layer.diff_id.clone(), made)),
                    Err(error) => {
                        locked(&failure).get_or_insert(error);
                        // Nobody wants the others any more: they end with an error of their own, which is not told. Those of
                        // earlier images have begun, and make these complete.
                        if is_only {
                            self.cancelled.store(true, Ordering::Relaxed);
                            blobs.stop();
                        }
                        return;
                    }
                }
            }
        };
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() && is_only {
            // Images that have to be joined again are. Where the caller is gone as well, nobody commits anything.
            self.cancelled.store(false, Ordering::Relaxed);
        }
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let dependents = dependents.into_inner().unwrap_or_else(PoisonError::into_inner);
        Layers { done, failure, dependents }
    }

    /// Returns the bytes that these images need for layers that the cache does not have; none if there is room for any. Those that it
    /// has are held from now on, as far as that many leases can be held, so that making room takes none of them.
    pub(crate) fn needed(
        &self,
        images: &[NamedImage],
        blobs: &impl Blobs,
    ) -> MicrosandboxResult<Option<u64>> {
        let mut missing = Vec::new();
        let mut held = 0;
        for layer in distinct(images) {
            let entry = Entry::named(Room::Layers, &layer.diff_id);
            if held < lease::most_held() && self.sound(&entry)?.is_some() {
                drop(self.publication.hold(&entry, || {})?);
                held += 1;
            }
            if self.sound(&entry)?.is_none() && !self.publication.is_kept(&entry) {
                // Nothing goes for an image that cannot be loaded.
                blobs.check_size(layer)?;
                missing.push(layer);
            }
        }
        room::needed(&missing, blobs, self.publication.cache().root())
    }

    pub(crate) fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.origin)
    }

    pub(crate) fn writing(&self, error: std::io::Error) -> MicrosandboxError {
        self.fail(IngestProblem::writing(error)).into()
    }

    pub(crate) fn tell(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }

    /// Makes the artifact of a layer, unless the cache has it.
    fn layer(
        &self,
        layer: &SourceLayer,
        blobs: &impl Blobs,
        dependents: &Mutex<Dependents>,
    ) -> MicrosandboxResult<DoneLayer> {
        let entry = Entry::named(Room::Layers, &layer.diff_id);
        let name = layer.diff_id.as_str();
        let _turn = self.publication.hold(&entry, || self.tell(ProgressEvent::Waiting { layer: name }))?;
        let mut sound = self.sound(&entry)?;
        if sound.is_none() && self.publication.restore(&entry).map_err(|error| self.writing(error))? {
            sound = self.sound(&entry)?;
        }
        if let Some(length) = sound {
            self.publication.reuse(&entry).map_err(|error| self.writing(error))?;
            let outcome = LayerOutcome::Cached;
            self.tell(ProgressEvent::LayerDone { layer: name, outcome, bytes: layer.size });
            return Ok(DoneLayer { length, is_new: false });
        }
        let length = self.make(layer, &entry, blobs, dependents)?;
        Ok(DoneLayer { length, is_new: true })
    }

    /// Makes the artifact of a layer, whose lock is held. Returns its length.
    fn make<B: Blobs>(
        &self,
        layer: &SourceLayer,
        entry: &Entry,
        blobs: &B,
        dependents: &Mutex<Dependents>,
    ) -> MicrosandboxResult<u64> {
        let (name, step) = (layer.diff_id.as_str(), B::STEP);
        self.tell(ProgressEvent::LayerStarted { layer: name, step, bytes: layer.size });
        let source = blobs.open(layer).map_err(|error| error.in_layer(&layer.diff_id))?;
        let fail = |problem: IngestProblem| self.fail(problem).in_layer(&layer.diff_id);
        let file = self.publication.begin(entry)?;
        let meter = Meter::new(self.progress.clone(), &layer.diff_id, step, layer.size);
        let image = file.as_file().try_clone().map_err(|error| fail(IngestProblem::writing(error)))?;
        let blob = LayerBlob { origin: self.origin, source, digest: &layer.digest, diff_id: &layer.diff_id };
        let Self { limits, spent, cancelled, .. } = *self;
        let Converted { summary, skipped } =
            convert(blob, image, &Watch { limits, spent, cancelled, meter: &meter })?;
        if skipped.count > 0 {
            let types = &skipped.types.escape_ascii().to_string();
            self.tell(ProgressEvent::EntriesSkipped { layer: name, count: skipped.count, types });
        }
        if self.is_known(&layer.diff_id)? {
            self.publication.exclude_others(entry).map_err(|error| fail(IngestProblem::writing(error)))?;
            let mut found = self.part_dependents(&layer.diff_id, file.as_file())?;
            locked(dependents).append(&mut found);
        }
        self.publication.publish(entry, file).map_err(|error| fail(IngestProblem::writing(error)))?;
        let outcome = LayerOutcome::Converted;
        self.tell(ProgressEvent::LayerDone { layer: name, outcome, bytes: layer.size });
        Ok(summary.bytes())
    }

    fn is_known(&self, diff_id: &Digest) -> MicrosandboxResult<bool> {
        let reader = self.publication.reader()?;
        has_layer(&reader, diff_id).map_err(MicrosandboxError::db("look a layer up"))
    }

    /// Returns the length of a valid image, as [`Publication::sound_image`] does.
    pub(crate) fn sound(&self, entry: &Entry) -> MicrosandboxResult<Option<u64>> {
        let path = self.publication.cache().path_of(entry);
        self.publication.sound_image(entry).map_err(MicrosandboxError::io("open", &path))
    }
}

/// Returns the layers of images, each once: those of an image before those of the next, and the largest first, so that none of
/// them begins when the others are done.
fn distinct(images: &[NamedImage]) -> Vec<&SourceLayer> {
    let mut seen = HashSet::new();
    let mut layers = Vec::new();
    for named in images {
        let begin = layers.len();
        layers.extend(named.image.layers.iter().filter(|layer| seen.insert(&layer.diff_id)));
        layers[begin..].sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.diff_id.cmp(&b.diff_id)));
    }
    layers
}

/// Splits images into batches of which each has as many layers as leases can be held at once.
///
/// # Errors
/// The limit, if one image has more layers.
pub(crate) fn batches(images: Vec<NamedImage>) -> Result<Vec<Vec<NamedImage>>, IngestProblem> {
    // Beside the layers, an image in progress holds those of its own files and names.
    let limit = lease::most_held();
    let mut batches: Vec<Vec<NamedImage>> = Vec::new();
    let mut layers: HashSet<Digest> = HashSet::new();
    for named in images {
        let own: HashSet<Digest> = named.image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if own.len() > limit {
            return Err(IngestProblem::Files { layers: own.len(), limit });
        }
        let fits = layers.union(&own).count() <= limit;
        match batches.last_mut().filter(|_| fits) {
            Some(batch) => batch.push(named),
            None => {
                layers.clear();
                batches.push(vec![named]);
            }
        }
        layers.extend(own);
    }
    Ok(batches)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
