//! Saving images one after the other: their layers, then their documents.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_erofs::reader::Image as ErofsImage;

use super::archive::{Archive, Hashing};
use super::blocks::{Blocks, Codec, Compressors};
use super::compression::LayerCompression;
use super::config;
use super::documents::{Documents, NewImage};
use super::layer::{LayerFault, Watch, Written, write_layer};
use super::source::{Target, layer_file};
use super::{SaveError, SaveReport, SavedImage, SavedLayer, interrupted};
use crate::artifacts::Rooms;
use crate::catalog::PooledReader;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::ingest::metadata::KeptMetadata;
use crate::ingest::progress::{LayerOutcome, LayerStep, Meter, Progress, ProgressEvent};
use crate::records::{ImageDetail, ImageLayerDetail};
use crate::reference::Digest;
use crate::store::Store;

/// A save in progress.
pub(super) struct Saving {
    pub(super) store: Arc<Store>,
    pub(super) reader: PooledReader,
    /// The name of the output, for errors.
    pub(super) output: PathBuf,
    pub(super) archive: Archive,
    pub(super) documents: Documents,
    pub(super) packing: Packing,
    /// The layers that were saved so far, by their diff IDs in the index.
    pub(super) layers: HashMap<String, SavedLayer>,
    pub(super) progress: Option<Arc<dyn Progress>>,
    pub(super) cancelled: Arc<AtomicBool>,
}

/// A compression, with what does it.
pub(super) enum Packing {
    Plain,
    Blocks(Codec, Compressors),
}

impl Packing {
    pub(super) fn new(compression: LayerCompression) -> MicrosandboxResult<Self> {
        let codec = match compression {
            LayerCompression::None => return Ok(Self::Plain),
            LayerCompression::Gzip(level) => Codec::Gzip(level),
            LayerCompression::Zstd(level) => Codec::Zstd(level),
        };
        let compressors =
            Compressors::start().map_err(MicrosandboxError::io("compress", "layers".as_ref()))?;
        Ok(Self::Blocks(codec, compressors))
    }
}

impl Saving {
    pub(super) fn run(mut self, targets: Vec<Target>) -> MicrosandboxResult<SaveReport> {
        self.documents.begin(&mut self.archive).map_err(MicrosandboxError::io("write", &self.output))?;
        let mut images = Vec::new();
        for target in targets {
            images.push(self.image(target)?);
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        let Self { documents, mut archive, output, .. } = self;
        documents.finish(&mut archive).map_err(MicrosandboxError::io("write", &output))?;
        let bytes_written = archive.publish().map_err(MicrosandboxError::io("write", &output))?;
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
        let image = NewImage { config: &config, layers: &layers, annotations, tags: &tags };
        let (config_digest, manifest) = self
            .documents
            .add_image(&mut self.archive, image)
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
        let Self { archive, documents, packing, .. } = self;
        let saved = |written: Written, diff_id: Digest, blob_digest: Digest, size_bytes| SavedLayer {
            blob_digest,
            diff_id,
            size_bytes,
            sockets_left_out: written.sockets,
            source_diff_id: source_diff_id.to_owned(),
            xattrs_left_out: written.xattrs,
        };
        match packing {
            // Read twice rather than kept: what is saved to another machine may be what the disk is full of.
            Packing::Plain if archive.is_stream() => {
                let mut tar = Hashing::new(io::sink());
                let written = write_layer(image, &mut tar, &*watch.cancelled)?;
                let (_, digest, size) = tar.finish();
                let write = |out: &mut dyn Write| write_layer(image, out, watch).map(drop);
                archive.add_known(&documents.layer_name(&digest), size, write)?;
                Ok(saved(written, digest.clone(), digest, size))
            }
            Packing::Plain => archive.add(|member| {
                let mut tar = Hashing::new(member);
                let written = write_layer(image, &mut tar, watch)?;
                let (_, digest, size) = tar.finish();
                Ok((documents.layer_name(&digest), saved(written, digest.clone(), digest, size)))
            }),
            Packing::Blocks(codec, compressors) => archive.add(|member| {
                let mut tar = Hashing::new(Blocks::new(Hashing::new(member), *codec, compressors)?);
                let written = write_layer(image, &mut tar, watch)?;
                let (blocks, diff_id, _) = tar.finish();
                let (_, blob_digest, size) = blocks.finish()?.finish();
                Ok((documents.layer_name(&blob_digest), saved(written, diff_id, blob_digest, size)))
            }),
        }
    }
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
        self.cancelled.read(bytes)?;
        self.count(bytes);
        Ok(())
    }
}

/// Watches for the end of the call alone.
impl Watch for AtomicBool {
    fn read(&self, _: u64) -> Result<(), LayerFault> {
        if self.load(Ordering::Relaxed) { Err(LayerFault::Cancelled) } else { Ok(()) }
    }
}

impl From<std::io::Error> for LayerFault {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}
