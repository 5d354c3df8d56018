//! The work of a load or pull on its images: parameters, batches, and what is done of them.
//!
//! Images are worked on in batches, so that leases are held on a bounded number of layers at a time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::account::Spent;
use super::error::{IngestError, IngestProblem};
use super::limits::IngestLimits;
use super::progress::{Progress, ProgressEvent};
use super::publish::Publication;
use super::source::{NamedImage, SourceLayer};
use crate::artifacts::{Entry, lease};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

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
    /// True if this call made it, and not an earlier one.
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

/// An image in the index that has a layer of this call.
pub(crate) struct Dependent {
    pub(crate) manifest: Digest,
    /// The diff IDs, from bottom to top.
    pub(crate) layers: Vec<Digest>,
}

/// The images that have to be joined again.
pub(crate) type Dependents = Vec<Dependent>;

impl Work<'_> {
    pub(crate) fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.origin)
    }

    pub(crate) fn writing(&self, error: io::Error) -> MicrosandboxError {
        self.fail(IngestProblem::writing(error)).into()
    }

    pub(crate) fn tell(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }

    /// Returns the length of a valid image, as [`Publication::sound_image`] does.
    pub(crate) fn sound(&self, entry: &Entry) -> MicrosandboxResult<Option<u64>> {
        let path = self.publication.cache().path_of(entry);
        self.publication.sound_image(entry).map_err(MicrosandboxError::io("open", &path))
    }
}

/// Returns the layers of images, each once: those of an image before those of the next, and the largest first, so that none of
/// them begins when the others are done.
pub(crate) fn distinct(images: &[NamedImage]) -> Vec<&SourceLayer> {
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
