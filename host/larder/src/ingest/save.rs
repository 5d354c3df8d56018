//! Saving images of a cache as archives.
//!
//! A cache keeps no blobs: its layers are EROFS images. So an archive's layers are rebuilt from those (`layer`,
//! `tar`), with the config, the manifest and the archive around them (`config`, `archive`, `documents`). [`ImageSave`]
//! documents what is preserved.
//!
//! # Locking
//! The index is read in short transactions, and not changed. The files of an image are read under shared leases. These
//! are taken before another query checks that the index still has the image, so no process deletes the files
//! meanwhile. Images are saved one after the other, so descriptors are held for one image at a time.
//!
//! # Memory
//! Memory grows with the number of directories and hard-linked files of a layer, not with sizes.
//!
//! # What survives a crash
//! An archive appears complete and synced, by its final rename. Dropping the future ends the work soon and removes the
//! incomplete archive. A killed process leaves a temporary file `.larder-save-…` beside the output.

mod archive;
mod config;
mod documents;
mod error;
mod layer;
mod report;
mod source;
mod tar;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use larder_erofs::reader::Image as ErofsImage;

pub use config::ConfigOrigin;
pub use error::SaveError;
pub use report::{SaveReport, SavedImage, SavedLayer, SavedManifest};

use super::progress::{LayerOutcome, LayerStep, Meter, Progress, ProgressEvent};
use crate::artifacts::Rooms;
use crate::backend::LocalBackend;
use crate::catalog::journal::{self, NewUse, UseKind};
use crate::catalog::{CancelOnDrop, PooledReader, Writer, blocking, identity};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::ingest::metadata::KeptMetadata;
use crate::records::{ImageArchiveFormat, ImageDetail, ImageLayerDetail};
use crate::reference::Digest;
use crate::store::Store;
use archive::{Archive, Hashing};
use layer::{LayerFault, Watch, Written, write_layer};
use source::{Target, layer_file};

/// The name of the work in errors.
const ACTION: &str = "save images";

/// A save of images to an archive: the work of [`Image::save`](crate::Image::save), with more settings.
///
/// # What is preserved
/// - The content of the layers: names, contents, modes, owners, times to the nanosecond, link structure, device
///   numbers, extended attributes, removals. Not preserved: sockets, for which tar has no form; and access and change
///   times, names of owners, and comments, which the cache does not keep.
/// - The config, byte for byte if no diff ID changes, and otherwise everything in it except the diff IDs. If the cache
///   has lost the text, the fields that the index has. [`SavedImage::config`] states which case applies.
/// - The manifest's annotations, in an OCI archive.
/// - The reference, normalized. A reference with a digest and no tag names nothing in an archive, since its digest
///   would be that of another manifest.
///
/// A layer's diff ID stays the same only if its original archive has the same layout, member by member. The digests of
/// blobs and manifests change. An image that was loaded from an archive of Larder's and is saved again is the same,
/// byte for byte. So is an image that is saved twice.
///
/// ```no_run
/// # async fn example(local: &larder::LocalBackend) -> larder::MicrosandboxResult<()> {
/// use larder::ImageArchiveFormat;
/// use larder::ingest::ImageSave;
///
/// let report = ImageSave::new(["acme/app:1"], "app.tar").format(ImageArchiveFormat::Oci).run(local).await?;
/// println!("{} bytes", report.bytes_written);
/// # Ok(())
/// # }
/// ```
pub struct ImageSave {
    references: Vec<String>,
    output: PathBuf,
    format: ImageArchiveFormat,
    progress: Option<Arc<dyn Progress>>,
}

impl ImageSave {
    /// Makes a save of these images, in their order, to an archive at `output`.
    pub fn new<R: Into<String>>(references: impl IntoIterator<Item = R>, output: impl Into<PathBuf>) -> Self {
        Self {
            references: references.into_iter().map(Into::into).collect(),
            output: output.into(),
            format: ImageArchiveFormat::default(),
            progress: None,
        }
    }

    /// Sets the form of the archive.
    pub fn format(mut self, format: ImageArchiveFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the receiver of progress. A layer that several images share is saved and reported once.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Saves the images, and returns a report of them. See [`Image::save_local`](crate::Image::save_local).
    ///
    /// # Errors
    /// The same as [`Image::save_local`](crate::Image::save_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<SaveReport> {
        let Self { references, output, format, progress } = self;
        let store = Arc::clone(local.store());
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let (report, saved) = blocking(ACTION, move || {
            let reader = store.catalog().reader()?;
            let targets = source::resolve(&reader, &references)?;
            let failed = MicrosandboxError::io("write", &output);
            let mut archive = Archive::create(&output).map_err(failed)?;
            documents::begin(&mut archive, format).map_err(MicrosandboxError::io("write", &output))?;
            let layers = HashMap::new();
            let saved = saved(&reader, &targets);
            let saving = Saving { store, reader, output, format, archive, layers, progress, cancelled };
            Ok((saving.run(targets)?, saved))
        })
        .await?;
        record(local, saved).await;
        Ok(report)
    }
}

impl std::fmt::Debug for ImageSave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageSave")
            .field("references", &self.references)
            .field("output", &self.output)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// An image that is saved, for the journal.
struct Saved {
    manifest: String,
    references: Vec<String>,
}

/// Returns what to record when the images are saved: nothing in a home that Larder has never changed, since saving reads.
fn saved(reader: &PooledReader, targets: &[Target]) -> Vec<Saved> {
    let is_ours = matches!(identity::home_id(reader), Ok(Some(_)));
    let targets = targets.iter().filter(|_| is_ours);
    let saved = |target: &Target| Saved {
        manifest: target.manifest_digest.clone(),
        references: target.references.clone(),
    };
    targets.map(saved).collect()
}

/// Records that images were saved. They are, whether that can be recorded or not: the home may be read-only.
async fn record(local: &LocalBackend, saved: Vec<Saved>) {
    if saved.is_empty() {
        return;
    }
    let (action, at) = ("record what was saved", local.now());
    let record = move |writer: &mut Writer, _: &_| {
        writer.change(action, |connection| {
            for Saved { manifest, references } in &saved {
                for reference in references {
                    let reference = Some(reference.as_str());
                    let new = NewUse { manifest, reference, sandbox: None, kind: UseKind::Save, at };
                    journal::record(connection, &new).map_err(MicrosandboxError::db(action))?;
                }
            }
            Ok(())
        })
    };
    if let Err(error) = local.store().write_on(action, record).await {
        tracing::debug!("could not {action}: {error}");
    }
}

struct Saving {
    store: Arc<Store>,
    reader: PooledReader,
    output: PathBuf,
    format: ImageArchiveFormat,
    archive: Archive,
    /// The layers that were saved so far, by their diff IDs in the index.
    layers: HashMap<String, SavedLayer>,
    progress: Option<Arc<dyn Progress>>,
    cancelled: Arc<AtomicBool>,
}

impl Saving {
    fn run(mut self, targets: Vec<Target>) -> MicrosandboxResult<SaveReport> {
        let mut images = Vec::new();
        for target in targets {
            images.push(self.image(target)?);
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        documents::finish(&mut self.archive, self.format, &images)
            .map_err(MicrosandboxError::io("write", &self.output))?;
        let bytes_written = self.archive.publish().map_err(MicrosandboxError::io("write", &self.output))?;
        Ok(SaveReport { bytes_written, images })
    }

    fn image(&mut self, target: Target) -> MicrosandboxResult<SavedImage> {
        let cache = self.store.cache();
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let held = target.hold(&self.reader, &rooms, cache, &self.cancelled)?;
        let count = held.detail.layers.len();
        let mut layers = Vec::with_capacity(count);
        for layer in &held.detail.layers {
            layers.push(self.layer(&rooms, &held.detail, layer)?);
        }
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let (config, origin) = config::config(&held.detail, held.metadata.as_ref(), &diff_ids);
        let annotations = held.metadata.as_ref().map(KeptMetadata::annotations).unwrap_or_default();
        let Target { references, tags, manifest_digest } = target;
        let (config_digest, manifest) =
            documents::add_image(&mut self.archive, self.format, &config, &layers, annotations)
                .map_err(MicrosandboxError::io("write", &self.output))?;
        self.tell(ProgressEvent::ImageReady { manifest_digest: &manifest_digest, layers: count });
        Ok(SavedImage { config: origin, config_digest, layers, manifest, references, tags })
    }

    fn tell(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }

    /// Adds a layer to the archive, unless the archive has it.
    fn layer(
        &mut self,
        rooms: &Rooms,
        image: &ImageDetail,
        layer: &ImageLayerDetail,
    ) -> MicrosandboxResult<SavedLayer> {
        if let Some(saved) = self.layers.get(&layer.diff_id) {
            return Ok(saved.clone());
        }
        let reference = image.handle.reference();
        let (path, file, bytes) = layer_file(rooms, self.store.cache(), reference, layer)?;
        let erofs = ErofsImage::open(file).map_err(|source| SaveError::Unreadable {
            reference: reference.to_owned(),
            path: path.clone(),
            source,
        })?;
        let (name, step) = (layer.diff_id.as_str(), LayerStep::Save);
        self.tell(ProgressEvent::LayerStarted { layer: name, step, bytes });
        let meter = Meter::new(self.progress.clone(), &name.parse()?, step, bytes);
        let watch = Watcher { meter, bytes, cancelled: Arc::clone(&self.cancelled) };
        let saved = self.convert(&erofs, name, &watch).map_err(|fault| {
            let (reference, position) = (reference.to_owned(), layer.position);
            match fault {
                LayerFault::Damaged(source) => SaveError::UnreadableEntry { reference, path, source }.into(),
                LayerFault::NotInTar { entry, why } => {
                    SaveError::NotInTar { reference, position, entry, why }.into()
                }
                LayerFault::Write(source) => MicrosandboxError::io("write", &self.output)(source),
                LayerFault::Cancelled => interrupted(),
            }
        })?;
        watch.finish();
        self.tell(ProgressEvent::LayerDone { layer: name, outcome: LayerOutcome::Saved, bytes });
        self.layers.insert(layer.diff_id.clone(), saved.clone());
        Ok(saved)
    }

    fn convert(
        &mut self,
        image: &ErofsImage<File>,
        source_diff_id: &str,
        watch: &Watcher,
    ) -> Result<SavedLayer, LayerFault> {
        let format = self.format;
        self.archive.add(|member| {
            let (Written { sockets }, diff_id, blob_digest, size_bytes) = match format {
                ImageArchiveFormat::Docker => {
                    let mut tar = Hashing::new(member);
                    let written = write_layer(image, &mut tar, watch)?;
                    let (_, digest, size) = tar.finish();
                    (written, digest.clone(), digest, size)
                }
                ImageArchiveFormat::Oci => {
                    // The header has no name and no time: the same layer gives the same blob.
                    let gzip = GzEncoder::new(Hashing::new(member), Compression::default());
                    let mut tar = Hashing::new(gzip);
                    let written = write_layer(image, &mut tar, watch)?;
                    let (gzip, diff_id, _) = tar.finish();
                    let (_, blob_digest, size) = gzip.finish()?.finish();
                    (written, diff_id, blob_digest, size)
                }
            };
            let name = documents::layer_name(format, &blob_digest);
            let source_diff_id = source_diff_id.to_owned();
            let saved =
                SavedLayer { blob_digest, diff_id, size_bytes, sockets_left_out: sockets, source_diff_id };
            Ok((name, saved))
        })
    }
}

fn interrupted() -> MicrosandboxError {
    MicrosandboxError::Interrupted(ACTION.to_owned())
}

/// A counter of the contents of files, which are almost the whole of an image. The rest is counted when the layer is
/// done.
struct Watcher {
    meter: Meter,
    /// The length of the image in bytes.
    bytes: u64,
    cancelled: Arc<AtomicBool>,
}

impl Watcher {
    fn count(&self, bytes: u64) {
        // Files with holes can be longer than the image that they are in.
        self.meter.add(bytes.min(self.bytes.saturating_sub(self.meter.done())));
    }

    fn finish(&self) {
        self.count(self.bytes);
    }
}

impl Watch for Watcher {
    fn read(&self, bytes: u64) -> Result<(), LayerFault> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(LayerFault::Cancelled);
        }
        self.count(bytes);
        Ok(())
    }
}

impl From<std::io::Error> for LayerFault {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}
