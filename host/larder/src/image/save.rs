//! Images out of the cache.

use std::path::Path;

use super::Image;
use crate::backend::{LocalBackend, default_backend};
use crate::error::{MicrosandboxResult, Operation};
use crate::ingest::ImageSave;
use crate::records::ImageArchiveFormat;

impl Image {
    /// Saves images of the default backend to an archive. See [`save_local`](Self::save_local).
    ///
    /// # Errors
    /// As [`save_local`](Self::save_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn save(
        references: &[String],
        output: &Path,
        format: ImageArchiveFormat,
    ) -> MicrosandboxResult<()> {
        Self::save_local(default_backend().local_for(Operation::ImageSave)?, references, output, format).await
    }

    /// Saves images to one archive, in the order of the references. Images that share layers share them there, too.
    ///
    /// The layers are made anew from what the cache keeps. Their contents and metadata and the image's config are
    /// preserved; digests of layers and manifests are other ones in general, and the config's follows where a diff ID
    /// changes. Sockets are left out: tar has no form for them. A reference with a digest and no tag is saved without a
    /// name. The same images give the same bytes.
    ///
    /// The archive is readable for its owner alone. It appears as a whole, in the place of a file that is there; until
    /// then, and where saving fails, the old one stays. Dropping the future ends the work and leaves nothing.
    ///
    /// [`ImageSave`] says what happens, what was saved, and what exactly is preserved.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference);
    /// [`Save`](crate::MicrosandboxError::Save) where a file of the cache is missing or damaged, or a layer has
    /// something that no archive can have; [`Io`](crate::MicrosandboxError::Io) where the archive cannot be written;
    /// and where the home cannot be read.
    pub async fn save_local(
        local: &LocalBackend,
        references: &[String],
        output: &Path,
        format: ImageArchiveFormat,
    ) -> MicrosandboxResult<()> {
        ImageSave::new(references, output).format(format).run(local).await.map(drop)
    }
}
