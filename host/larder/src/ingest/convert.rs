//! Converting the layers of images in parallel, then joining the layers of each image.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use larder_erofs::format::{BLOCK_SIZE, DeviceTag};
use larder_erofs::merge::{CoveredLinks, MergeError, Merger};
use larder_erofs::reader::Image;
use larder_erofs::vmdk::{Extent, descriptor};
use larder_erofs::writer::{Encoding, Options};

use super::account::{Spent, check_limit};
use super::error::{IngestError, IngestProblem};
use super::layer::{BlobSource, Converted, LayerBlob, Watch, convert, uuid_of};
use super::limits::{IngestLimits, LimitKey};
use super::progress::{LayerOutcome, LayerStep, Meter, Progress, ProgressEvent};
use super::publish::{Publication, Sizes};
use super::room;
use super::source::{NamedImage, SourceImage, SourceLayer};
use crate::artifacts::{Entry, Room, lease};
use crate::catalog::journal::PullCost;
use crate::catalog::publish::{NewImage, NewLayer, layer_sizes, manifests_with_layer};
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

    /// Returns a part of the blob of a layer, without the rest. `None` if that cannot be had, or fails.
    fn part(&self, layer: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>>;

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

/// The layers of a call, by diff ID: the length of each artifact, and whether this call made it.
type Layers = HashMap<Digest, (u64, bool)>;

impl Work<'_> {
    /// Makes every file of these images that the index names, and holds its lease. Metadata and rows are then still
    /// missing.
    pub(crate) fn artifacts(
        &self,
        images: &[NamedImage],
        blobs: &impl Blobs,
    ) -> MicrosandboxResult<Vec<NewImage>> {
        let layers = self.layers(images)?;
        let known = self.known(&layers)?;
        let done = self.convert_all(layers, blobs)?;
        for named in images {
            let fresh =
                named.image.layers.iter().any(|layer| done.get(&layer.diff_id).is_some_and(|done| done.1));
            let diff_ids: Vec<Digest> =
                named.image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
            self.join(&named.image.manifest, &diff_ids, fresh)?;
            self.tell(ProgressEvent::ImageReady {
                manifest_digest: named.image.manifest.as_str(),
                layers: diff_ids.len(),
            });
        }
        self.join_dependents(images, &done, &known)?;
        Ok(images.iter().map(|named| new_image(named, &done)).collect())
    }

    /// Returns the bytes that these images need for layers that the cache does not have; none if there is room for any. Those that it
    /// has are held from now on, so that making room takes none of them.
    pub(crate) fn needed(
        &self,
        images: &[NamedImage],
        blobs: &impl Blobs,
    ) -> MicrosandboxResult<Option<u64>> {
        let mut missing = Vec::new();
        for layer in self.layers(images)? {
            let entry = Entry::named(Room::Layers, &layer.diff_id);
            if sound(self.publication, &entry)?.is_some() {
                drop(self.publication.hold(&entry, || {})?);
            }
            if sound(self.publication, &entry)?.is_none() {
                missing.push(layer);
            }
        }
        room::needed(&missing, blobs, self.publication.cache().root())
    }

    /// Returns the layers of images, each once.
    fn layers<'i>(&self, images: &'i [NamedImage]) -> MicrosandboxResult<Vec<&'i SourceLayer>> {
        let mut layers: Vec<&SourceLayer> = Vec::new();
        let mut seen = HashSet::new();
        for layer in images.iter().flat_map(|named| &named.image.layers) {
            if seen.insert(&layer.diff_id) {
                layers.push(layer);
            }
        }
        let references: usize = images.iter().map(|named| named.references.len()).sum();
        let limit = lease::batch_size();
        if layers.len() + 2 * images.len() + 2 * references > limit {
            let limit = limit as u64;
            return Err(self.fail(IngestProblem::Files { limit }).into());
        }
        Ok(layers)
    }

    pub(crate) fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.origin)
    }

    fn tell(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }

    /// Returns the layers that the index has.
    fn known(&self, layers: &[&SourceLayer]) -> MicrosandboxResult<Sizes> {
        let reader = self.publication.reader()?;
        layer_sizes(&reader, layers.iter().map(|layer| &layer.diff_id))
            .map_err(MicrosandboxError::db("look layers up"))
    }

    fn convert_all(&self, mut layers: Vec<&SourceLayer>, blobs: &impl Blobs) -> MicrosandboxResult<Layers> {
        // The largest first, so that none of them begins when the others are done.
        layers.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.diff_id.cmp(&b.diff_id)));
        let threads = blobs.concurrency().min(layers.len());
        let next = AtomicUsize::new(0);
        let done: Mutex<Layers> = Mutex::default();
        let first_error: Mutex<Option<MicrosandboxError>> = Mutex::default();
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.layer(layer, blobs) {
                    Ok(made) => {
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.insert(layer.diff_id.clone(), made);
                    }
                    Err(error) => {
                        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        // Nobody wants the others any more: they end with an error of their own, which is not told.
                        self.cancelled.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Makes the artifact of a layer, unless the cache has it. Returns its length, and whether it was made.
    fn layer(&self, layer: &SourceLayer, blobs: &impl Blobs) -> MicrosandboxResult<(u64, bool)> {
        let entry = Entry::named(Room::Layers, &layer.diff_id);
        let name = layer.diff_id.as_str();
        let _turn = self.publication.hold(&entry, || self.tell(ProgressEvent::Waiting { layer: name }))?;
        if let Some(length) = sound(self.publication, &entry)? {
            self.reuse(&entry)?;
            let outcome = LayerOutcome::Cached;
            self.tell(ProgressEvent::LayerDone { layer: name, outcome, bytes: layer.size });
            return Ok((length, false));
        }
        self.make(layer, &entry, blobs).map(|length| (length, true))
    }

    /// Syncs an existing artifact to disk that is used unchanged.
    fn reuse(&self, entry: &Entry) -> MicrosandboxResult<()> {
        let reused = self.publication.reuse(entry);
        reused.map_err(|error| self.fail(IngestProblem::writing(error)).into())
    }

    /// Makes the artifact of a layer, whose lock is held. Returns its length.
    fn make<B: Blobs>(&self, layer: &SourceLayer, entry: &Entry, blobs: &B) -> MicrosandboxResult<u64> {
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
        self.publication.publish(entry, file).map_err(|error| fail(IngestProblem::writing(error)))?;
        let outcome = LayerOutcome::Converted;
        self.tell(ProgressEvent::LayerDone { layer: name, outcome, bytes: layer.size });
        Ok(summary.bytes())
    }

    /// Makes the fsmeta image and the VMDK descriptor of a manifest. `anew` forces it, if a layer is not the one that
    /// the existing files were made of: another writer may have put its data at other positions.
    fn join(&self, manifest: &Digest, layers: &[Digest], anew: bool) -> MicrosandboxResult<()> {
        let root = self.publication.cache().root();
        // Descriptors hold absolute paths.
        let root = root.canonicalize().map_err(MicrosandboxError::io("find", root))?;
        let parts: Vec<Entry> = layers.iter().map(|layer| Entry::named(Room::Layers, layer)).collect();
        let fsmeta = Entry::named(Room::Fsmeta, manifest);
        let _turn = self.publication.hold(&fsmeta, || {})?;
        if anew || !fits(self.publication, &fsmeta, &parts)? {
            let file = self.publication.begin(&fsmeta)?;
            let image =
                file.as_file().try_clone().map_err(|error| self.fail(IngestProblem::writing(error)))?;
            let covered = merge(image, manifest, layers, self.publication, self.limits)
                .map_err(|problem| self.fail(problem))?;
            if covered.count > 0 {
                let paths: Vec<String> = covered.paths.iter().map(ToString::to_string).collect();
                let (manifest_digest, count) = (manifest.as_str(), covered.count);
                self.tell(ProgressEvent::LinksCovered { manifest_digest, count, paths: &paths });
            }
            self.publication
                .publish(&fsmeta, file)
                .map_err(|error| self.fail(IngestProblem::writing(error)))?;
        } else {
            self.reuse(&fsmeta)?;
        }
        let vmdk = Entry::named(Room::Vmdk, manifest);
        let _turn = self.publication.hold(&vmdk, || {})?;
        let mut lengths = Vec::new();
        for entry in std::iter::once(&fsmeta).chain(&parts) {
            let path = root.join(entry.path());
            let length = self.publication.open(entry).and_then(|file| Ok(file.metadata()?.len()));
            lengths.push((length.map_err(MicrosandboxError::io("read", &path))?, path));
        }
        let disk: Vec<Extent<'_>> =
            lengths.iter().map(|(length, path)| Extent { path, length: *length }).collect();
        let text = descriptor(&disk).map_err(|error| self.fail(IngestProblem::Join(error.to_string())))?;
        if self.publication.read_small(&vmdk).is_ok_and(|before| before == text.as_bytes()) {
            return self.reuse(&vmdk);
        }
        let written = self.publication.write_small(&vmdk, text.as_bytes());
        written.map_err(|error| self.fail(IngestProblem::writing(error)).into())
    }

    /// Joins the layers of other images again if they have a layer whose artifact was lost and is made again.
    fn join_dependents(&self, images: &[NamedImage], done: &Layers, known: &Sizes) -> MicrosandboxResult<()> {
        let remade = done.iter().filter(|(diff_id, (_, made))| *made && known.contains_key(*diff_id));
        let mut joined: HashSet<Digest> = images.iter().map(|named| named.image.manifest.clone()).collect();
        for (diff_id, _) in remade {
            let dependents = {
                let reader = self.publication.reader()?;
                manifests_with_layer(&reader, diff_id)
                    .map_err(MicrosandboxError::db("find the images of a layer"))?
            };
            for (manifest, layers) in dependents {
                if !joined.insert(manifest.clone()) {
                    continue;
                }
                let mut all_there = true;
                for layer in &layers {
                    all_there &= sound(self.publication, &Entry::named(Room::Layers, layer))?.is_some();
                }
                // Without all of its layers an image is damaged anyway: `verify` names what is missing.
                if all_there {
                    self.join(&manifest, &layers, true)?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the length of a valid image, as [`Publication::sound_image`] does.
fn sound(publication: &Publication, entry: &Entry) -> MicrosandboxResult<Option<u64>> {
    let path = publication.cache().path_of(entry);
    publication.sound_image(entry).map_err(MicrosandboxError::io("open", &path))
}

/// Returns whether there is an fsmeta image that refers to layers of the same lengths as these.
fn fits(publication: &Publication, fsmeta: &Entry, layers: &[Entry]) -> MicrosandboxResult<bool> {
    if sound(publication, fsmeta)?.is_none() {
        return Ok(false);
    }
    let path = publication.cache().path_of(fsmeta);
    let file = publication.open(fsmeta).map_err(MicrosandboxError::io("open", &path))?;
    let Ok(image) = Image::open(file) else { return Ok(false) };
    let length = |layer: &Entry| publication.open(layer).and_then(|file| Ok(file.metadata()?.len())).ok();
    Ok(image.devices().len() == layers.len()
        && image
            .devices()
            .iter()
            .zip(layers)
            .all(|(device, layer)| length(layer) == Some(u64::from(device.blocks) * BLOCK_SIZE as u64)))
}

fn merge(
    sink: File,
    manifest: &Digest,
    layers: &[Digest],
    publication: &Publication,
    limits: &IngestLimits,
) -> Result<CoveredLinks, IngestProblem> {
    let mut merger = Merger::new();
    for layer in layers {
        let join = |why: String| IngestProblem::Join(format!("layer `{layer}`: {why}"));
        let file = publication.open(&Entry::named(Room::Layers, layer));
        let file = file.map_err(|error| join(error.to_string()))?;
        let image = Image::open(file).map_err(|error| join(error.to_string()))?;
        let tag = DeviceTag::parse(layer.hex()).map_err(|error| join(error.to_string()))?;
        merger.add(&image, tag).map_err(|error| join(chain(&error)))?;
        check_limit(merger.inodes(), limits, LimitKey::ImageEntries)?;
        check_limit(merger.metadata_bytes(), limits, LimitKey::ImageMetadataBytes)?;
    }
    let options = Options { encoding: Encoding::Simple, uuid: uuid_of(manifest) };
    let covered = merger.covered_links().clone();
    match merger.finish(sink, options) {
        Ok(_) => Ok(covered),
        Err(larder_erofs::writer::WriteError::Write(error)) => Err(IngestProblem::writing(error)),
        Err(error) => Err(IngestProblem::Join(error.to_string())),
    }
}

/// Returns an error and its sources in one text.
fn chain(error: &MergeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn new_image(named: &NamedImage, done: &Layers) -> NewImage {
    let SourceImage { manifest, manifest_media_type, config_digest, config, layers, .. } = &named.image;
    let platform = config.platform();
    let runtime = &config.config;
    NewImage {
        references: named.references.clone(),
        manifest: manifest.clone(),
        media_type: manifest_media_type.clone(),
        config_digest: config_digest.clone(),
        os: platform.os().to_owned(),
        architecture: platform.architecture().to_owned(),
        variant: platform.variant().map(str::to_owned),
        env: runtime.env.clone(),
        cmd: runtime.cmd.clone(),
        entrypoint: runtime.entrypoint.clone(),
        working_dir: runtime.working_dir.clone(),
        user: runtime.user.clone(),
        labels: runtime.labels.clone(),
        stop_signal: runtime.stop_signal.clone(),
        layers: layers
            .iter()
            .map(|layer| NewLayer {
                diff_id: layer.diff_id.clone(),
                blob_digest: layer.digest.clone(),
                media_type: layer.media_type.clone(),
                compressed_bytes: layer.size,
                erofs_bytes: done.get(&layer.diff_id).map_or(0, |(length, _)| *length),
            })
            .collect(),
    }
}
