//! Requests to the registry of one reference (OCI distribution specification), each repeated if that may help.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference, RegistryOperation};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::blob::{BlobReader, Transfer};
use super::credentials::Credentials;
use super::fault::{Fault, Remedy};
use crate::artifacts::plain::{MAX_METADATA, read_at};
use crate::catalog::journal::PullCost;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::ingest::convert::Blobs;
use crate::ingest::document::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::layer::BlobSource;
use crate::ingest::limits::{IngestLimits, LimitKey};
use crate::ingest::metadata::KeptMetadata;
use crate::ingest::progress::{LayerStep, Progress, ProgressEvent};
use crate::ingest::source::{Documents, SourceLayer};
use crate::reference::{Digest, Reference};

/// The media types that a request for a manifest accepts.
const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The time after which an attempt to connect fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The time without data after which a connection fails.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The minimum and maximum number of layers that are downloaded at a time. The minimum applies to machines with fewer
/// processors, since downloads wait for the network. The maximum exists because each download has its buffers.
const CONCURRENCY: std::ops::RangeInclusive<usize> = 4..=8;

/// The transport to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Encrypted, with a certificate that this machine trusts.
    #[default]
    Https,
    /// Not encrypted: anyone on the network path can read and change the data. For registries on this machine.
    PlainHttp,
}

/// The proxies between this machine and a registry. By default there are none: the environment is not read.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// The URL of the proxy for [`Transport::Https`].
    pub https: Option<String>,
    /// The URL of the proxy for [`Transport::PlainHttp`].
    pub http: Option<String>,
    /// The hosts, domains and networks that are reached without a proxy, separated by commas, as in `NO_PROXY`.
    pub exceptions: Option<String>,
}

/// Hides the proxies' URLs, because they may contain a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("exceptions", &self.exceptions).finish_non_exhaustive()
    }
}

/// The number and times of the retries of a request: after a broken connection, on 429 (too many requests), and on
/// faults of the server (5xx). Each wait is twice as long as the one before. The count starts again when some bytes
/// of a blob arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The number of retries: 5.
    pub retries: u32,
    /// The length of the first wait: half a second.
    pub first_wait: Duration,
    /// The maximum length of a wait: 30 seconds.
    pub longest_wait: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { retries: 5, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// Returns the waits between tries.
    pub(super) fn waits(self) -> impl Iterator<Item = Duration> {
        let next = move |wait: &Duration| Some(wait.saturating_mul(2));
        let waits = std::iter::successors(Some(self.first_wait), next);
        waits
            .map(move |wait| wait.min(self.longest_wait))
            .take(usize::try_from(self.retries).unwrap_or(usize::MAX))
    }
}

/// The settings for access to a registry.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    pub(super) credentials: Credentials,
    pub(super) transport: Transport,
    pub(super) proxies: Proxies,
    pub(super) backoff: Backoff,
}

/// The registry of a reference, for threads that may block.
pub(super) struct Registry {
    /// The runtime. Present until drop.
    runtime: Option<Runtime>,
    link: Arc<Link>,
    document_bytes: u64,
    began: Instant,
    /// Set once a blob of a layer was requested.
    has_layers: AtomicBool,
    /// The path of the cache's metadata of the reference.
    metadata: PathBuf,
}

impl Registry {
    /// Prepares requests for a reference. Sends no request yet, but may run a helper for the credentials.
    pub(super) fn connect(
        reference: &Reference,
        access: Access,
        progress: Option<Arc<dyn Progress>>,
        cancelled: watch::Receiver<()>,
        limits: &IngestLimits,
        metadata: PathBuf,
    ) -> MicrosandboxResult<Self> {
        let began = Instant::now();
        let fail = |problem: IngestProblem| problem.of(reference.as_str());
        let parsed = reference.to_oci();
        let Access { credentials, transport, proxies, backoff } = access;
        let auth = credentials.resolve(parsed.registry()).map_err(fail)?;
        let config = ClientConfig {
            protocol: match transport {
                Transport::Https => ClientProtocol::Https,
                Transport::PlainHttp => ClientProtocol::Http,
            },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("larder/", env!("CARGO_PKG_VERSION")),
            https_proxy: proxies.https,
            http_proxy: proxies.http,
            no_proxy: proxies.exceptions,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| fail(Fault::from(error).problem))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("larder-registry")
            .enable_all()
            .build()
            .map_err(|error| MicrosandboxError::Interrupted(format!("no threads for downloads: {error}")))?;
        let link = Link {
            client,
            name: reference.to_string(),
            reference: parsed,
            auth,
            backoff,
            progress,
            cancelled,
            reached: AtomicBool::new(false),
            received: AtomicU64::new(0),
        };
        let (runtime, document_bytes) = (Some(runtime), limits.document_bytes);
        let has_layers = AtomicBool::new(false);
        Ok(Self { runtime, link: Arc::new(link), document_bytes, began, has_layers, metadata })
    }

    /// Returns the manifest or index of the reference itself, with its digest.
    pub(super) fn top_document(&self) -> Result<(Digest, Vec<u8>), IngestError> {
        let text = self.fetch(&self.link.reference)?;
        Ok((Digest::of(&text), text))
    }

    fn fetch(&self, reference: &OciReference) -> Result<Vec<u8>, IngestError> {
        let text = self.wait_for(self.link.manifest(reference))?;
        if text.len() as u64 > self.document_bytes {
            return Err(self.too_large());
        }
        Ok(text)
    }

    fn wait_for<T>(&self, work: impl Future<Output = Result<T, IngestProblem>>) -> Result<T, IngestError> {
        let Some(runtime) = &self.runtime else { return Err(self.fail(IngestProblem::Cancelled)) };
        runtime.block_on(work).map_err(|problem| self.fail(problem))
    }

    /// Begins to transfer a blob, and returns its reader.
    fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader, IngestError> {
        let Some(runtime) = &self.runtime else { return Err(self.fail(IngestProblem::Cancelled)) };
        let (transfer, reader) = Transfer::new(Arc::clone(&self.link), digest.clone(), size);
        runtime.spawn(transfer.run());
        Ok(reader)
    }

    fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(&self.link.name)
    }

    fn too_large(&self) -> IngestError {
        let limit = self.document_bytes;
        self.fail(IngestProblem::Limit { limit, key: LimitKey::DocumentBytes })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Whatever still goes on, such as looking a name up, is of no interest any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Documents for Registry {
    fn origin(&self) -> &str {
        &self.link.name
    }

    fn manifest(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        if size > self.document_bytes {
            return Err(self.too_large());
        }
        self.fetch(&self.link.reference.clone_with_digest(digest.to_string()))
    }

    fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        use std::io::Read as _;
        let kept = read_at(rustix::fs::CWD, self.metadata.as_os_str(), MAX_METADATA).ok();
        let kept = kept.and_then(|text| KeptMetadata::parse(&text));
        if let Some(text) = kept.as_ref().and_then(|kept| kept.config_of(digest)) {
            return Ok(text.as_bytes().to_owned());
        }
        if size > self.document_bytes {
            return Err(self.too_large());
        }
        let mut text = Vec::new();
        let read = self.blob(digest, size)?.read_to_end(&mut text);
        read.map_err(|error| self.fail(IngestProblem::reading(error)))?;
        Ok(text)
    }
}

impl Blobs for Registry {
    const STEP: LayerStep = LayerStep::Download;

    fn origin(&self) -> &str {
        &self.link.name
    }

    fn concurrency(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        processors.clamp(*CONCURRENCY.start(), *CONCURRENCY.end())
    }

    fn open(&self, layer: &SourceLayer) -> Result<BlobSource, IngestError> {
        self.has_layers.store(true, Ordering::Relaxed);
        Ok(Box::new(self.blob(&layer.digest, layer.size)?))
    }

    fn part(&self, layer: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>> {
        self.wait_for(self.link.part(&layer.digest, offset, length)).ok()
    }

    fn cost(&self) -> Option<PullCost> {
        let cost = PullCost {
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes: self.link.received.load(Ordering::Relaxed),
        };
        self.has_layers.load(Ordering::Relaxed).then_some(cost)
    }
}

/// The state that all requests of a pull share.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) reference: OciReference,
    auth: RegistryAuth,
    /// The text of the reference.
    name: String,
    pub(super) backoff: Backoff,
    progress: Option<Arc<dyn Progress>>,
    /// The receiver whose sender is dropped when the pull is cancelled.
    cancelled: watch::Receiver<()>,
    /// Set if the registry has ever answered.
    reached: AtomicBool,
    /// The bytes of manifests and blobs that arrived.
    pub(super) received: AtomicU64,
}

impl Link {
    /// Requests a manifest or an index.
    async fn manifest(&self, reference: &OciReference) -> Result<Vec<u8>, IngestProblem> {
        let mut waits = self.backoff.waits();
        loop {
            match self.unless_cancelled(self.request_manifest(reference)).await? {
                Ok(text) => return Ok(text),
                Err(fault) => self.wait(&self.name, fault, &mut waits).await?,
            }
        }
    }

    async fn request_manifest(&self, reference: &OciReference) -> Result<Vec<u8>, Fault> {
        // The client asks for a token with each request, too, and then has nothing to say of why there is none.
        if !self.reached.load(Ordering::Relaxed) {
            self.client.auth(reference, &self.auth, RegistryOperation::Pull).await?;
            self.reached.store(true, Ordering::Relaxed);
        }
        let (text, _) = self.client.pull_manifest_raw(reference, &self.auth, &MANIFESTS).await?;
        self.received.fetch_add(text.len() as u64, Ordering::Relaxed);
        Ok(text.into())
    }

    /// Waits before the next try, or returns the problem if another try does not help.
    pub(super) async fn wait(
        &self,
        what: &str,
        fault: Fault,
        waits: &mut (impl Iterator<Item = Duration> + Send),
    ) -> Result<(), IngestProblem> {
        let helps = match fault.remedy {
            Remedy::Again => true,
            Remedy::AgainOnceReached => self.reached.load(Ordering::Relaxed),
            Remedy::None => false,
        };
        let Some(wait) = helps.then(|| waits.next()).flatten() else { return Err(fault.problem) };
        if let Some(progress) = &self.progress {
            let why = fault.problem.to_string();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            progress.event(ProgressEvent::Retrying { what, wait_ms, why: &why });
        }
        self.unless_cancelled(tokio::time::sleep(wait)).await
    }

    /// Returns the result of some work, unless the pull is cancelled.
    pub(super) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, IngestProblem> {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            result = work => Ok(result),
            // Nothing is ever sent: the channel can only close.
            _ = cancelled.changed() => Err(IngestProblem::Cancelled),
        }
    }
}
