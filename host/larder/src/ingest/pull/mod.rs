//! Images from registries into the cache.
//!
//! ```text
//! credentials  who asks: nobody, a user, or whom Docker's configuration names
//! fault        what a registry or the way to it did, and whether to try again
//! registry     requests, each tried again where that may help
//! blob         a blob as a stream that goes on where a broken connection ended
//! ```
//!
//! Nothing of a blob is kept on disk: what arrives is decompressed, hashed and written as an EROFS image at once, and
//! memory holds a few pieces of it. A connection that breaks is made anew and asks for the rest. Layers, and a config,
//! that the cache has are not asked for.
//!
//! # Threads
//! Requests run on a small runtime of their own, so that it does not matter which runtime the caller has or what that
//! was built with. Dropping the future ends them at once.

mod blob;
mod credentials;
mod fault;
mod registry;

pub use credentials::Credentials;
pub use registry::{Backoff, Proxies, Transport};

use std::sync::Arc;

use tokio::sync::watch;

use super::intake::Intake;
use super::limits::IngestLimits;
use super::progress::Progress;
use super::publish::Publication;
use super::source::{NamedImage, Resolver};
use super::{IngestError, IngestProblem};
use crate::artifacts::Entry;
use crate::backend::LocalBackend;
use crate::catalog::publish::NewOrigin;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageHandle;
use crate::reference::Reference;
use registry::{Access, Registry};

/// Pulling an image from its registry: what [`Image::pull`](crate::Image::pull) does, and with more to be said about
/// how.
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
    access: Access,
    limits: IngestLimits,
    progress: Option<Arc<dyn Progress>>,
}

impl ImagePull {
    /// Of this reference, without credentials, by HTTPS.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            access: Access::default(),
            limits: IngestLimits::default(),
            progress: None,
        }
    }

    /// Who asks for it.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.access.credentials = credentials;
        self
    }

    /// How the registry is reached.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.access.transport = transport;
        self
    }

    /// Which proxies stand between here and the registry.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.access.proxies = proxies;
        self
    }

    /// How often what failed is tried again, and when.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.access.backoff = backoff;
        self
    }

    /// How much the image may ask of this machine.
    pub fn limits(mut self, limits: IngestLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Who is told what happens.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Takes the image in. See [`Image::pull_local`](crate::Image::pull_local).
    ///
    /// Dropped before it is done, it leaves the cache as it was.
    ///
    /// # Errors
    /// As [`Image::pull_local`](crate::Image::pull_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<ImageHandle> {
        let reference: Reference = self.reference.parse()?;
        let Self { access, limits, progress, .. } = self;
        // Requests end when this end of the channel is gone.
        let (alive, cancelled) = watch::channel(());
        let intake = Intake { origin: NewOrigin::Registry, limits, progress: progress.clone() };
        let name = reference.clone();
        let find = move |publication: &Publication, limits: &IngestLimits| {
            let metadata = publication.cache().path_of(&Entry::metadata(&reference));
            let registry = Registry::connect(&reference, access, progress, cancelled, limits, metadata)?;
            let image = find_image(&registry, reference, limits)?;
            Ok((registry, vec![image]))
        };
        let handles = intake.run(local, find).await?;
        drop(alive);
        handles.into_iter().next().ok_or_else(|| MicrosandboxError::ImageNotFound(name.to_string()))
    }
}

impl std::fmt::Debug for ImagePull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImagePull")
            .field("reference", &self.reference)
            .field("access", &self.access)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What the registry has under a reference, for this machine.
fn find_image(
    registry: &Registry,
    reference: Reference,
    limits: &IngestLimits,
) -> Result<NamedImage, IngestError> {
    let (digest, text) = registry.top_document()?;
    let resolver = Resolver::new(registry, limits);
    let found = resolver.document(digest.clone(), text, None, 0)?;
    let image = resolver.suitable(found, IngestProblem::EmptyIndex(digest))?;
    // One document leads to one image.
    let image =
        image.into_iter().next().ok_or_else(|| IngestProblem::NotInRegistry.of(reference.as_str()))?;
    Ok(NamedImage { image, references: vec![reference] })
}
