//! The progress of loads, pulls and saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::reference::Digest;

/// A receiver of the progress of loads, pulls and saves. It is called from several threads, and should return soon.
pub trait Progress: Send + Sync {
    /// Handles an event.
    fn event(&self, event: ProgressEvent<'_>);
}

/// A progress event. Layers are identified by their diff ID in the index.
///
/// The bytes of a layer are the bytes that a step reads: its blob for a load or pull, its EROFS image for a save.
///
/// The JSON form is stable: the variant's name as `event`, in lowercase with hyphens, beside its fields. The program
/// writes it to standard error with `--format json`, as `{"progress": …}`, one event a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// A layer is about to be loaded, pulled or saved.
    LayerStarted {
        /// The layer.
        layer: &'a str,
        /// The first step.
        step: LayerStep,
        /// The number of bytes to read.
        bytes: u64,
    },
    /// More of a layer was read.
    LayerAdvanced {
        /// The layer.
        layer: &'a str,
        /// The current step.
        step: LayerStep,
        /// The number of bytes that this step has read so far. At the end it is `bytes`.
        done: u64,
        /// The number of bytes to read.
        bytes: u64,
    },
    /// A layer is complete in the cache, or in the archive.
    LayerDone {
        /// The layer.
        layer: &'a str,
        /// The way in which it was completed.
        outcome: LayerOutcome,
        /// The number of bytes to read.
        bytes: u64,
    },
    /// An image is complete and about to get its names: its layers are joined in the cache, or it is in the archive
    /// with config and manifest.
    ImageReady {
        /// The digest of the manifest in the index.
        manifest_digest: &'a str,
        /// The number of layers.
        layers: usize,
    },
    /// A reference of an image is in the index.
    ImageAdded {
        /// The reference.
        reference: &'a str,
        /// The digest of the manifest in the index.
        manifest_digest: &'a str,
    },
    /// The call waits for a layer that another call or process makes.
    Waiting {
        /// The layer.
        layer: &'a str,
    },
    /// Another program has changed the index for long, and the call waits for it. What was made is kept meanwhile.
    WaitingForIndex,
    /// An image of an archive, or a name of one, is left out.
    ImageSkipped {
        /// A name of the image, or its digest.
        image: &'a str,
        /// The reason.
        why: &'a str,
    },
    /// Entries of a layer were left out, since no image has entries of their types: labels of volumes, for instance.
    EntriesSkipped {
        /// The layer.
        layer: &'a str,
        /// The number of entries.
        count: u64,
        /// The characters of their types in the archive, each once.
        types: &'a str,
    },
    /// Layers of an image replace symbolic links of the layers below them by directories, and the links led to
    /// directories: what was reached through a link is no longer there. The layers were probably made without knowing of
    /// the links.
    LinksCovered {
        /// The digest of the manifest in the index.
        manifest_digest: &'a str,
        /// The number of such links.
        count: u64,
        /// The paths of the first of them.
        paths: &'a [String],
    },
    /// A download failed and is tried again.
    Retrying {
        /// The thing that is downloaded.
        what: &'a str,
        /// The wait before the next attempt, in milliseconds.
        wait_ms: u64,
        /// The reason of the failure.
        why: &'a str,
    },
}

/// The step in the processing of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerStep {
    /// The layer's blob is downloaded from a registry.
    Download,
    /// The layer's blob is converted to an EROFS image.
    Convert,
    /// The layer's EROFS image is written to an archive.
    Save,
}

/// The way in which a layer was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerOutcome {
    /// The layer was in the cache.
    Cached,
    /// The layer was converted.
    Converted,
    /// The layer was written to the archive.
    Saved,
}

/// A counter of the bytes read of a layer, which reports progress from time to time.
pub(crate) struct Meter {
    progress: Option<Arc<dyn Progress>>,
    layer: Digest,
    step: LayerStep,
    bytes: u64,
    done: AtomicU64,
}

/// The number of bytes between two events.
const STRIDE: u64 = 1 << 20;

impl Meter {
    pub(crate) fn new(
        progress: Option<Arc<dyn Progress>>,
        layer: &Digest,
        step: LayerStep,
        bytes: u64,
    ) -> Self {
        Self { progress, layer: layer.clone(), step, bytes, done: AtomicU64::new(0) }
    }

    /// Returns the number of bytes read so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let done = before + bytes;
        // Whoever reads to the end reads nothing at last.
        let Some(progress) = self.progress.as_ref().filter(|_| bytes > 0) else { return };
        if done / STRIDE != before / STRIDE || done == self.bytes {
            let layer = self.layer.as_str();
            progress.event(ProgressEvent::LayerAdvanced { layer, step: self.step, done, bytes: self.bytes });
        }
    }
}
