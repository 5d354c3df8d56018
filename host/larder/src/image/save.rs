//! Saving images of the cache to archives.

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

    /// Saves images to one archive, in the order of the references. Images that share layers share them in the archive,
    /// too.
    ///
    /// The layers are rebuilt from the files of the cache. Their contents and metadata and the image's config are
    /// preserved. The digests of layers and manifests are usually different, and the config's digest changes if a diff
    /// ID does. Sockets are left out, because tar has no form for them, and so are extended attributes whose names have a
    /// `=` or are not UTF-8. A reference with a digest and no tag is saved without a name. The same images produce the
    /// same bytes.
    ///
    /// Only the owner can read the archive. It appears as a whole and replaces an existing file. Until then, and if
    /// saving fails, the existing file stays. Dropping the future ends the work and leaves no file.
    ///
    /// [`ImageSave`] writes to streams, compresses, reports progress and the saved images, and documents exactly what is preserved.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound) or
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference) for a reference.
    /// [`Save`](crate::MicrosandboxError::Save) if a file of the cache is missing or damaged, or a layer has an entry
    /// that no archive can hold. [`Io`](crate::MicrosandboxError::Io) if the archive cannot be written. An error if the
    /// home cannot be read.
    pub async fn save_local(
        local: &LocalBackend,
        references: &[String],
        output: &Path,
        format: ImageArchiveFormat,
    ) -> MicrosandboxResult<()> {
        ImageSave::new(references, output).format(format).run(local).await.map(drop)
    }
}
