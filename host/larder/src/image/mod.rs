//! The image API of the microsandbox SDK: [`Image`] and the records it returns.
//!
//! Every call exists twice: on the [default backend](crate::backend::default_backend), and as `…_local` on an explicit
//! [`LocalBackend`], which uses no ambient state.

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
/// A reference is first matched exactly as in the index, then in its normalized form: `python:3.12` finds
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
    /// Returns one image of the default backend. See [`get_local`](Self::get_local).
    ///
    /// # Errors
    /// As [`get_local`](Self::get_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn get(reference: &str) -> MicrosandboxResult<ImageHandle> {
        Self::get_local(default_backend().local_for(Operation::ImageGet)?, reference).await
    }

    /// Returns one image by its reference.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or an error if the home cannot be read.
    pub async fn get_local(local: &LocalBackend, reference: &str) -> MicrosandboxResult<ImageHandle> {
        let reference = reference.to_owned();
        local.store().read("look an image up", move |connection| read::get(connection, &reference)).await
    }

    /// Returns every image of the default backend. See [`list_local`](Self::list_local).
    ///
    /// # Errors
    /// As [`list_local`](Self::list_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn list() -> MicrosandboxResult<Vec<ImageHandle>> {
        Self::list_local(default_backend().local_for(Operation::ImageList)?).await
    }

    /// Returns every image, the newest created first. Images of the same time are ordered by reference.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn list_local(local: &LocalBackend) -> MicrosandboxResult<Vec<ImageHandle>> {
        local.store().read("list images", read::list).await
    }

    /// Returns one image of the default backend with its config and layers. See [`inspect_local`](Self::inspect_local).
    ///
    /// # Errors
    /// As [`inspect_local`](Self::inspect_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a
    /// backend that is not local.
    pub async fn inspect(reference: &str) -> MicrosandboxResult<ImageDetail> {
        Self::inspect_local(default_backend().local_for(Operation::ImageInspect)?, reference).await
    }

    /// Returns one image by its reference, with its config and its layers from bottom to top.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound),
    /// [`InvalidReference`](crate::MicrosandboxError::InvalidReference), or an error if the home cannot be read.
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
    /// With `force`, an image in use loses its reference and its pin; its data stays while it is used.
    ///
    /// # Errors
    /// [`ImageNotFound`](crate::MicrosandboxError::ImageNotFound) if there is no such image.
    /// [`ImageInUse`](crate::MicrosandboxError::ImageInUse) without `force` if the image is used or pinned: it names
    /// the sandboxes and snapshots, or the pin. [`ImageInUse`](crate::MicrosandboxError::ImageInUse) even with `force`
    /// while a live operation holds the image. An error if the home cannot be written.
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

    /// Removes every reference that is neither used nor pinned, then the manifests and layers that nothing reaches, and
    /// the files of the cache that no row owns and that are older than an hour.
    ///
    /// Leaves what the guard of the home protects ([`LocalBackend::guard`]). Skips and counts images that a live operation
    /// holds, and never waits for them. Leaves images that cannot be removed, and continues with the rest.
    ///
    /// # Errors
    /// Fails if the home cannot be written, or its guard cannot be understood. Images that were removed before the failure
    /// stay removed.
    pub async fn prune_local(local: &LocalBackend) -> MicrosandboxResult<ImagePruneReport> {
        open_for_writing(local).await?;
        let report = local.apply(&local.plan_prune().await?).await?;
        for problem in &report.problems {
            tracing::warn!("{problem}");
        }
        Ok(report.report)
    }

    /// Loads images into the cache of the default backend. See [`load_local`](Self::load_local).
    ///
    /// # Errors
    /// As [`load_local`](Self::load_local), and [`Unsupported`](crate::MicrosandboxError::Unsupported) on a backend
    /// that is not local.
    pub async fn load(input: &Path, tags: Vec<String>) -> MicrosandboxResult<Vec<ImageHandle>> {
        Self::load_local(default_backend().local_for(Operation::ImageLoad)?, input, tags).await
    }

    /// Loads the images of a `docker save` archive or an OCI image layout: a directory, or a tar archive, plain or
    /// compressed with gzip or zstd. Returns a record for each reference, in the order of the archive.
    ///
    /// From an index, the image for this machine is loaded, and members that are no images are passed over. The references are those
    /// of the archive, or `tags` instead: a tag is for an archive with one image, and a repository without a tag keeps the tags that
    /// images have. An image without a reference is left out, as long as another has one. References are stored in their normalized
    /// form. A reference that already exists names the new image afterwards. An image of `docker save` has no manifest: Larder makes one from
    /// its config and layers, which is the same wherever the image is loaded. Layers that the cache has are not
    /// converted again.
    ///
    /// [`ImageLoad`] has settings, and reports progress.
    ///
    /// Images are added one by one. After an error, those stay that were complete before it, and nothing of the others.
    ///
    /// # Errors
    /// [`Ingest`](crate::MicrosandboxError::Ingest), which names archive, layer and entry, if the archive cannot be
    /// loaded; [`InvalidReference`](crate::MicrosandboxError::InvalidReference) for an invalid tag; or an error if the
    /// home cannot be written.
    pub async fn load_local(
        local: &LocalBackend,
        input: &Path,
        tags: Vec<String>,
    ) -> MicrosandboxResult<Vec<ImageHandle>> {
        tags.into_iter().fold(ImageLoad::new(input), ImageLoad::tag).run(local).await
    }
}

/// Opens a home for a change that is planned first. Refuses a home that cannot be written before the planning starts,
/// and finishes interrupted removals.
async fn open_for_writing(local: &LocalBackend) -> MicrosandboxResult<()> {
    local.store().write("open the index", |_, _| Ok(())).await
}
