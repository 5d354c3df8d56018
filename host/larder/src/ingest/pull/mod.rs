//! Pulling images from registries into the cache.
//!
//! ```text
//! registry  the registry of a reference as a source of documents and blobs
//! blob      a stream of a blob that resumes where a broken connection ended
//! ```
//!
//! No part of a blob is kept on disk: the bytes are decompressed, hashed and written as an EROFS image while they
//! arrive, and memory holds a megabyte of it at most. A broken connection is replaced by a new one, which requests the rest.
//! What the cache has is not requested: layers, the config, and the manifest if its digest is still the reference's.
//!
//! # Threads
//! Requests run on a small runtime of their own, so the caller can have any runtime with any features. Dropping the
//! future ends them at once.

mod blob;
mod registry;

use std::sync::Arc;

use super::intake::Intake;
use super::limits::IngestLimits;
use super::progress::Progress;
use super::publish::Publication;
use super::room::MakeRoom;
use super::source::{NamedImage, Resolver};
use super::{IngestError, Platform};
use crate::artifacts::Entry;
use crate::backend::LocalBackend;
use crate::catalog::publish::NewOrigin;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageHandle;
use crate::reference::Reference;
use crate::registry::{
    Authorities, Backoff, Credentials, Document, Proxies, Settings, Stop, StopOnDrop, Transport,
};
use registry::Registry;

/// A pull of an image from its registry: the work of [`Image::pull`](crate::Image::pull), with more settings.
///
/// ```no_run
/// use larder::ingest::{Credentials, ImagePull, Transport};
///
/// # async fn example(local: &larder::LocalBackend) -> larder::MicrosandboxResult<()> {
/// let image = ImagePull::new("localhost:5000/acme/app:1")
///     .transport(Transport::PlainHttp)
///     .credentials(Credentials::Password { user: "acme".to_owned(), password: "secret".to_owned() })
///     .run(local)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ImagePull {
    reference: String,
    platform: Platform,
    settings: Settings,
    limits: IngestLimits,
    progress: Option<Arc<dyn Progress>>,
    room: Option<Arc<dyn MakeRoom>>,
}

impl ImagePull {
    /// Makes a pull of this reference, without credentials, by HTTPS.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            platform: Platform::of_this_machine(),
            settings: Settings::default(),
            limits: IngestLimits::default(),
            progress: None,
            room: None,
        }
    }

    /// Sets the platform of the image, instead of that of this machine.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the credentials.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.settings.credentials = credentials;
        self
    }

    /// Sets the transport to the registry.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.settings.transport = transport;
        self
    }

    /// Sets the proxies between this machine and the registry.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.settings.proxies = proxies;
        self
    }

    /// Sets certificates of authorities that are trusted beside those of this machine.
    pub fn authorities(mut self, authorities: Authorities) -> Self {
        self.settings.authorities = authorities;
        self
    }

    /// Sets the number of retries after a fault, and their times.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets the limits on the resources that the pull may use.
    pub fn limits(mut self, limits: IngestLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the receiver of progress.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Makes room for the pull before its first layer, by this, and fails if there is none. Without it, a pull that does not
    /// fit fails when the disk is full.
    pub fn make_room(mut self, room: Arc<dyn MakeRoom>) -> Self {
        self.room = Some(room);
        self
    }

    /// Pulls the image. See [`Image::pull_local`](crate::Image::pull_local).
    ///
    /// Dropping the future before it is done leaves the cache without the image. Layers that are complete are kept for a day, for
    /// the next pull; so they are after an error.
    ///
    /// # Errors
    /// The same as [`Image::pull_local`](crate::Image::pull_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<ImageHandle> {
        let reference: Reference = self.reference.parse()?;
        let Self { platform, settings, limits, progress, room, .. } = self;
        let stop = Stop::new();
        let stop_on_drop = StopOnDrop(stop.clone());
        let intake = Intake { origin: NewOrigin::Registry, limits, progress: progress.clone(), room };
        let name = reference.clone();
        let find = move |publication: &Publication, limits: &IngestLimits| {
            let metadata = publication.cache().path_of(&Entry::metadata(&reference));
            let registry = Registry::connect(&reference, settings, progress, stop, limits, metadata)?;
            let image = find_image(&registry, reference, &platform, limits)?;
            Ok((registry, vec![image]))
        };
        let handles = intake.run(local, find).await?;
        drop(stop_on_drop);
        handles.into_iter().next().ok_or_else(|| MicrosandboxError::ImageNotFound(name.to_string()))
    }
}

impl std::fmt::Debug for ImagePull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImagePull")
            .field("reference", &self.reference)
            .field("platform", &self.platform)
            .field("settings", &self.settings)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Returns the registry's image for a reference and a platform.
fn find_image(
    registry: &Registry,
    reference: Reference,
    platform: &Platform,
    limits: &IngestLimits,
) -> Result<NamedImage, IngestError> {
    let Document { text, digest, media_type } = registry.top_document()?;
    let image = Resolver::new(registry, platform, limits).top(digest, text, media_type)?;
    Ok(NamedImage { image, references: vec![reference] })
}
