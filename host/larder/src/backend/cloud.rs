//! The cloud backend, which has no image cache.

use std::sync::Arc;

use super::{Backend, BackendKind};

/// A service that runs sandboxes elsewhere. It has no local image cache: every image call on it fails with
/// [`MicrosandboxError::Unsupported`](crate::MicrosandboxError::Unsupported).
#[derive(Debug, Clone, Default)]
pub struct CloudBackend(());

impl CloudBackend {
    /// Makes a cloud backend.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for CloudBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Cloud
    }
}

impl From<CloudBackend> for Arc<dyn Backend> {
    fn from(backend: CloudBackend) -> Self {
        Arc::new(backend)
    }
}
