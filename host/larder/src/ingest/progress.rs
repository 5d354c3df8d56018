//! What is told of images while they are taken in or saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::reference::Digest;

/// Is told what happens while images are taken in or saved. Called from several threads, and should return soon.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: ProgressEvent<'_>);
}

/// Something that happened. Layers are told by their diff ID in the index.
///
/// The bytes of a layer are those of what is read of it in a step: of its blob on the way in, of its EROFS image on the
/// way out.
///
/// The form as JSON is stable: the variant's name as `event`, in lowercase with hyphens, beside its fields. The program
/// writes it to standard error with `--format json`, as `{"progress": …}`, one a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// A layer is about to be taken in or saved.
    LayerStarted {
        /// Which.
        layer: &'a str,
        /// What is done with it first.
        step: LayerStep,
        /// How much there is to read.
        bytes: u64,
    },
    /// More of a layer was read.
    LayerAdvanced {
        /// Which.
        layer: &'a str,
        /// What is being done with it.
        step: LayerStep,
        /// How much was read so far in this step: `bytes` in the end.
        done: u64,
        /// How much there is to read.
        bytes: u64,
    },
    /// A layer is in the cache, or in the archive.
    LayerDone {
        /// Which.
        layer: &'a str,
        /// How it got there.
        outcome: LayerOutcome,
        /// How much there was to read.
        bytes: u64,
    },
    /// An image is whole and about to get its names: its layers are joined in the cache, or it is in the archive with
    /// config and manifest.
    ImageReady {
        /// The digest of its manifest in the index.
        manifest_digest: &'a str,
        /// How many layers it has.
        layers: usize,
    },
    /// Another call or process makes this layer: it is waited for.
    Waiting {
        /// Which.
        layer: &'a str,
    },
    /// A download failed and is tried again.
    Retrying {
        /// What is downloaded.
        what: &'a str,
        /// Milliseconds until then.
        wait_ms: u64,
        /// Why it failed.
        why: &'a str,
    },
}

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerStep {
    /// Its blob comes from a registry.
    Download,
    /// Its blob becomes an EROFS image.
    Convert,
    /// Its EROFS image becomes part of an archive.
    Save,
}

/// How a layer got to where it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerOutcome {
    /// It was in the cache.
    Cached,
    /// It was converted.
    Converted,
    /// It was put into the archive.
    Saved,
}

/// Counts what is read of a layer, and tells of it now and then.
pub(crate) struct Meter {
    progress: Option<Arc<dyn Progress>>,
    layer: Digest,
    step: LayerStep,
    bytes: u64,
    done: AtomicU64,
}

/// How many bytes go by between two events.
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

    /// How much was read.
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
