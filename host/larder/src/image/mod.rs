//! The image API of the microsandbox SDK: [`Image`] and the records it returns.
//!
//! Every call exists twice: on the [default backend](crate::backend::default_backend), and as `…_local` on an
//! explicit [`LocalBackend`], which consults nothing ambient.

#[cfg(feature = "registry")]
mod pull;
mod save;

use std::path::Path;

use crate::backend::{LocalBackend, default_backend};
use crate::catalog::read;
use crate::error::{MicrosandboxError, MicrosandboxResult, Operation};
use crate::ingest::ImageLoad;
pub use crate::records::{
    ImageArchiveFormat, ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail, ImagePruneReport,
};

/// The images of the cache: a namespace.
///
/// A reference is matched as it stands in the index, then in its normalized form: `python:3.12` finds
/// `docker.io/library/python:3.12`.
///
/// ```no_run
/// # async fn example() -> larder::MicrosandboxResult<()> {
/// use larder::Image;
///
/// for image in Image::list().await? {
///     println!("{} {:?}", image.reference(), image.size_bytes());
/// }
/// let detail = Image::inspect("python:3.12").await?;
/// println!("{} layers", detail.layers.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Image;

impl Image {
    /// One image of the default backend. See [`get_local`](Self::get_local).
    ///
    /// # Errors
    /// As [`get_local`](Self::get_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn get(reference: &str) -> MicrosandboxResult<ImageHandle> {
        Self::get_local(default_backend().local_for(Operation::ImageGet)?, reference).await
    }

    /// One image by its reference.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or where the home cannot be read.
    pub async fn get_local(local: &LocalBackend, reference: &str) -> MicrosandboxResult<ImageHandle> {
        let reference = reference.to_owned();
        local.store().read("look an image up", move |connection| read::get(connection, &reference)).await
    }

    /// Every image of the default backend. See [`list_local`](Self::list_local).
    ///
    /// # Errors
    /// As [`list_local`](Self::list_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn list() -> MicrosandboxResult<Vec<ImageHandle>> {
        Self::list_local(default_backend().local_for(Operation::ImageList)?).await
    }

    /// Every image, newest created first; images of the same time in the order of their references.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn list_local(local: &LocalBackend) -> MicrosandboxResult<Vec<ImageHandle>> {
        local.store().read("list images", read::list).await
    }

    /// One image of the default backend with its config and layers. See [`inspect_local`](Self::inspect_local).
    ///
    /// # Errors
    /// As [`inspect_local`](Self::inspect_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a
    /// backend that is not local.
    pub async fn inspect(reference: &str) -> MicrosandboxResult<ImageDetail> {
        Self::inspect_local(default_backend().local_for(Operation::ImageInspect)?, reference).await
    }

    /// One image by its reference, with its config and its layers from bottom to top.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or where the home cannot be read.
    pub async fn inspect_local(local: &LocalBackend, reference: &str) -> MicrosandboxResult<ImageDetail> {
        let reference = reference.to_owned();
        local.store().read("inspect an image", move |connection| read::inspect(connection, &reference)).await
    }

    /// Removes one image of the default backend. See [`remove_local`](Self::remove_local).
    ///
    /// # Errors
    /// As [`remove_local`](Self::remove_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a
    /// backend that is not local.
    pub async fn remove(reference: &str, force: bool) -> MicrosandboxResult<()> {
        Self::remove_local(default_backend().local_for(Operation::ImageRemove)?, reference, force).await
    }

    /// Removes one reference, and the manifest, layers and files that nothing else needs.
    ///
    /// With `force`, an image in use loses its reference and its pin; its data stays for as long as it is used.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound);
    /// [`ImageInUse`](crate::MicrosandboxError::ImageInUse), which names the sandboxes and snapshots that use it or
    /// says that it is pinned, without `force`; the same, even with `force`, while a live operation holds it; and
    /// where the home cannot be written.
    pub async fn remove_local(local: &LocalBackend, reference: &str, force: bool) -> MicrosandboxResult<()> {
        open_for_writing(local).await?;
        let planned = local.plan_remove(&[reference.to_owned()], force).await?;
        if let Some(refused) = planned.refused.into_iter().next() {
            return Err(refused);
        }
        let report = local.apply(&planned.plan).await?;
        for problem in &report.problems {
            tracing::warn!("{problem}");
        }
        match report.spared.into_iter().next() {
            None if report.removed.is_empty() => Err(MicrosandboxError::ImageNotFound(reference.to_owned())),
            None => Ok(()),
            Some(spared) => {
                Err(MicrosandboxError::ImageInUse(format!("`{}` stays: {}", spared.reference, spared.reason)))
            }
        }
    }

    /// Removes every image of the default backend that nothing uses. See [`prune_local`](Self::prune_local).
    ///
    /// # Errors
    /// As [`prune_local`](Self::prune_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a
    /// backend that is not local.
    pub async fn prune() -> MicrosandboxResult<ImagePruneReport> {
        Self::prune_local(default_backend().local_for(Operation::ImagePrune)?).await
    }

    /// Removes every reference that nothing uses and nobody pinned, the manifests and layers that nothing reaches
    /// then, and files of the cache that nothing owns and that are older than an hour.
    ///
    /// What the guard of the home keeps ([`LocalBackend::guard`]) stays. What a live operation holds is skipped and counted,
    /// never waited for. What cannot be removed is left; the rest goes on.
    ///
    /// # Errors
    /// Where the home cannot be written, or its guard not be understood. What was removed until then stays removed.
    pub async fn prune_local(local: &LocalBackend) -> MicrosandboxResult<ImagePruneReport> {
        open_for_writing(local).await?;
        let report = local.apply(&local.plan_prune().await?).await?;
        for problem in &report.problems {
            tracing::warn!("{problem}");
        }
        Ok(report.report)
    }

    /// Takes images into the cache of the default backend. See [`load_local`](Self::load_local).
    ///
    /// # Errors
    /// As [`load_local`](Self::load_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn load(input: &Path, tags: Vec<String>) -> MicrosandboxResult<Vec<ImageHandle>> {
        Self::load_local(default_backend().local_for(Operation::ImageLoad)?, input, tags).await
    }

    /// Takes in the images of a `docker save` archive or an OCI image layout: a directory, or a tar archive, plain or
    /// compressed with gzip or zstd. Gives a record for each reference, in the order of the archive.
    ///
    /// Of an index, the image for this machine is taken. References are those of the archive, or `tags` in their place,
    /// which only an archive with one image can have; they are stored in their normalized form, and name another image
    /// than before where they were there already. An image of `docker save` has no manifest: one is made of its config
    /// and layers, the same wherever it is loaded. Layers that the cache has are not converted again.
    ///
    /// [`ImageLoad`] has settings, and says what happens.
    ///
    /// # Errors
    /// [`Ingest`](crate::MicrosandboxError::Ingest), which names archive, layer and entry, where it cannot be taken in;
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference) for a tag that is none; and where the home
    /// cannot be written. The cache is as it was then.
    pub async fn load_local(
        local: &LocalBackend,
        input: &Path,
        tags: Vec<String>,
    ) -> MicrosandboxResult<Vec<ImageHandle>> {
        tags.into_iter().fold(ImageLoad::new(input), ImageLoad::tag).run(local).await
    }
}

/// Opens a home for a change that is planned first: one that cannot be written is refused before that, and what an
/// interrupted removal left is finished.
async fn open_for_writing(local: &LocalBackend) -> MicrosandboxResult<()> {
    local.store().write("open the index", |_, _| Ok(())).await
}
