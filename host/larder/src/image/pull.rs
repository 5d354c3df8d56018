//! Images from registries.

use super::{Image, ImageHandle};
use crate::backend::{LocalBackend, default_backend};
use crate::error::{MicrosandboxResult, Operation};
use crate::ingest::ImagePull;

impl Image {
    /// Pulls an image into the cache of the default backend. See [`pull_local`](Self::pull_local).
    ///
    /// # Errors
    /// As [`pull_local`](Self::pull_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn pull(reference: &str) -> MicrosandboxResult<ImageHandle> {
        Self::pull_local(default_backend().local_for(Operation::ImagePull)?, reference).await
    }

    /// Pulls an image from its registry, by HTTPS and without credentials. Returns its record.
    ///
    /// Each call asks the registry whether the reference names another image than before. From an index, the image for
    /// this machine is pulled, and the record has the digest of its manifest. The manifest, every blob and every diff
    /// ID are verified. Layers that the cache has are not downloaded. Missing layers are downloaded in parallel and
    /// converted as they arrive. A broken connection is resumed at the byte where it ended. The reference is stored in
    /// its normalized form.
    ///
    /// [`ImagePull`] has settings: credentials, plain HTTP, proxies, limits, and the receiver of progress.
    ///
    /// # Errors
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference) for an invalid reference.
    /// [`Ingest`](crate::MicrosandboxError::Ingest), which names the reference and the layer, if the registry does not
    /// have the image, refuses it, cannot be reached or fails, or if its response cannot be loaded. An error if the
    /// home cannot be written. After an error the index is unchanged, and layers that are complete are kept for the next pull, for a
    /// day.
    pub async fn pull_local(local: &LocalBackend, reference: &str) -> MicrosandboxResult<ImageHandle> {
        ImagePull::new(reference).run(local).await
    }
}
