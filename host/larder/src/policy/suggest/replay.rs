//! One state for many runs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::MicrosandboxResult;
use crate::records::ImageDetail;
use crate::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageHistory, ImageRecord};

/// A state that any number of runs can be given, one after the other. What can change under a state, such as the disk,
/// is asked for once, so that two runs differ by their grants alone.
#[derive(Clone)]
pub(super) struct Replay(Arc<Mutex<Known>>);

struct Known {
    source: Box<dyn CacheSnapshot>,
    images: Option<Vec<ImageRecord>>,
    costs: Option<CostGraph>,
    history: Option<Vec<ImageHistory>>,
    disk: Option<DiskStatus>,
}

impl Replay {
    pub(super) fn new(source: Box<dyn CacheSnapshot>) -> Self {
        let known = Known { source, images: None, costs: None, history: None, disk: None };
        Self(Arc::new(Mutex::new(known)))
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Known) -> T) -> T {
        // What is known is whole at every unlock.
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns what is known, or else what the source says from now on.
fn once<T: Clone>(
    known: &mut Option<T>,
    ask: impl FnOnce() -> MicrosandboxResult<T>,
) -> MicrosandboxResult<T> {
    match known {
        Some(value) => Ok(value.clone()),
        None => Ok(known.insert(ask()?).clone()),
    }
}

impl CacheSnapshot for Replay {
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
        self.with(|known| once(&mut known.images, || known.source.images()))
    }

    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
        self.with(|known| known.source.detail(reference))
    }

    fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
        self.with(|known| once(&mut known.costs, || known.source.costs()))
    }

    fn history(&mut self) -> MicrosandboxResult<Vec<ImageHistory>> {
        self.with(|known| once(&mut known.history, || known.source.history()))
    }

    fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
        self.with(|known| once(&mut known.disk, || known.source.disk()))
    }
}
