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

    /// Pulls an image from its registry, by HTTPS and without credentials, and gives its record.
    ///
    /// The registry is asked each time whether the reference leads to another image than before. Of an index, the image
    /// for this machine is taken, and the record has the digest of its manifest. The manifest, every blob and every diff
    /// ID are verified. Layers that the cache has are not downloaded; those that are missing are downloaded side by side
    /// and converted as they arrive, and a connection that breaks is made anew where it ended. The reference is stored in
    /// its normalized form.
    ///
    /// [`ImagePull`] has settings: credentials, plain HTTP, proxies, limits, and who is told what happens.
    ///
    /// # Errors
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference);
    /// [`Ingest`](crate::MicrosandboxError::Ingest), which names the reference and the layer, where the registry does
    /// not have the image, refuses it, cannot be reached or fails, and where what it sends cannot be taken in; and where
    /// the home cannot be written. The cache is as it was then.
    pub async fn pull_local(local: &LocalBackend, reference: &str) -> MicrosandboxResult<ImageHandle> {
        ImagePull::new(reference).run(local).await
    }
}
