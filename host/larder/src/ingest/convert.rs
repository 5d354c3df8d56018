//! Converting the layers of images in parallel.
//!
//! When a layer fails, no other begins; the images before its own, whose layers have begun, are completed and added all the
//! same. The layers of an only image end at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::blobs::Blobs;
use super::error::IngestProblem;
use super::layer::{Converted, LayerBlob, Watch, convert};
use super::progress::{LayerOutcome, Meter, ProgressEvent};
use super::source::{NamedImage, SourceLayer};
use super::work::{Dependents, DoneLayer, Layers, Work, distinct};
use crate::artifacts::{Entry, Room};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

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
        if self.publication.is_owned(entry)? {
            self.publication.exclude_others(entry).map_err(|error| fail(IngestProblem::writing(error)))?;
            let mut found = self.part_dependents(&layer.diff_id, file.as_file())?;
            locked(dependents).append(&mut found);
        }
        self.publication.publish(entry, file).map_err(|error| fail(IngestProblem::writing(error)))?;
        let outcome = LayerOutcome::Converted;
        self.tell(ProgressEvent::LayerDone { layer: name, outcome, bytes: layer.size });
        Ok(summary.bytes())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
