//! The registry of a reference as a source of documents and blobs, for threads that may block.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::blob::{BlobReader, Transfer, part};
use crate::artifacts::plain::{MAX_METADATA, read_at};
use crate::catalog::journal::PullCost;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::ingest::blobs::Blobs;
use crate::ingest::document::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::layer::BlobSource;
use crate::ingest::limits::{IngestLimits, LimitKey};
use crate::ingest::metadata::KeptMetadata;
use crate::ingest::progress::{LayerStep, Progress, ProgressEvent};
use crate::ingest::source::{Documents, SourceLayer};
use crate::reference::{Digest, Reference};
use crate::registry::{Client, Document, Name, Problem, Retry, Settings, Stop};

/// The media types that a request for a manifest accepts.
const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The minimum and maximum number of layers that are downloaded at a time. The minimum applies to machines with fewer
/// processors, since downloads wait for the network. The maximum exists because each download has its buffers.
const CONCURRENCY: RangeInclusive<usize> = 4..=8;

impl From<Problem> for IngestProblem {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Missing => Self::NotInRegistry,
            Problem::Refused(why) => Self::Refused(why),
            Problem::Unreachable(why) => Self::Unreachable(why),
            Problem::NoAuthorities => Self::NoAuthorities,
            Problem::Failed(why) => Self::Registry(why),
            Problem::TooLarge(limit) => Self::Limit { limit, key: LimitKey::DocumentBytes },
            Problem::WrongDigest { expected, found } => {
                Self::WrongDigest { what: "the manifest", expected, found }
            }
            Problem::Credentials { path, why } => Self::Credentials { path, why },
            Problem::Cancelled => Self::Cancelled,
        }
    }
}

/// The registry of a reference.
pub(super) struct Registry {
    /// The runtime. Present until drop.
    runtime: Option<Runtime>,
    client: Arc<Client>,
    stop: Stop,
    reference: Reference,
    document_bytes: u64,
    began: Instant,
    /// Set once a blob of a layer was requested.
    has_layers: AtomicBool,
    /// The cache's metadata of the reference.
    kept: Option<KeptMetadata>,
}

impl Registry {
    /// Prepares requests for a reference. Sends no request yet. `metadata` is the path of the cache's metadata of the
    /// reference.
    pub(super) fn connect(
        reference: &Reference,
        settings: Settings,
        progress: Option<Arc<dyn Progress>>,
        stop: Stop,
        limits: &IngestLimits,
        metadata: PathBuf,
    ) -> MicrosandboxResult<Self> {
        let began = Instant::now();
        let told = move |Retry { what, wait, why }: Retry<'_>| {
            let Some(progress) = &progress else { return };
            let why = IngestProblem::from(why.clone()).to_string();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            progress.event(ProgressEvent::Retrying { what, wait_ms, why: &why });
        };
        let client = Client::new(reference, settings, stop.clone(), told);
        let client = client.map_err(|problem| IngestProblem::from(problem).of(reference.as_str()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("larder-registry")
            .enable_all()
            .build()
            .map_err(|error| MicrosandboxError::Interrupted(format!("no threads for downloads: {error}")))?;
        let kept = read_at(rustix::fs::CWD, metadata.as_os_str(), MAX_METADATA).ok();
        Ok(Self {
            runtime: Some(runtime),
            client: Arc::new(client),
            stop,
            reference: reference.clone(),
            document_bytes: limits.document_bytes,
            began,
            has_layers: AtomicBool::new(false),
            kept: kept.and_then(|text| KeptMetadata::parse(&text)),
        })
    }

    /// Returns the manifest or index of the reference itself, with its digest. If the cache has that, as the registry
    /// states, it is not downloaded.
    pub(super) fn top_document(&self) -> Result<Document, IngestError> {
        let parsed = self.reference.digest().map(str::parse::<Digest>).transpose();
        let digest = parsed.map_err(|_| {
            let why = "content of another digest than one of `sha256` cannot be checked".to_owned();
            self.fail(IngestProblem::Registry(why))
        })?;
        let name = match &digest {
            Some(digest) => Name::Digest(digest),
            None => Name::Tag(self.reference.tag().unwrap_or_default()),
        };
        if let Some((kept, text)) = self.kept.as_ref().and_then(KeptMetadata::manifest) {
            let current = match &digest {
                Some(digest) => Some(digest.clone()),
                None => self.runtime()?.block_on(self.client.digest(name, &MANIFESTS)),
            };
            if current.is_some_and(|current| current == kept) {
                let text = text.as_bytes().to_owned();
                return Ok(Document { text, digest: kept, media_type: None });
            }
        }
        self.fetch(name)
    }

    fn fetch(&self, name: Name<'_>) -> Result<Document, IngestError> {
        let request = self.client.manifest(self.reference.as_str(), name, &MANIFESTS, self.document_bytes);
        self.runtime()?.block_on(request).map_err(|problem| self.fail(problem.into()))
    }

    fn runtime(&self) -> Result<&Runtime, IngestError> {
        self.runtime.as_ref().ok_or_else(|| self.fail(IngestProblem::Cancelled))
    }

    /// Begins to transfer a blob, and returns its reader.
    fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader, IngestError> {
        let (transfer, reader) = Transfer::new(Arc::clone(&self.client), digest.clone(), size);
        self.runtime()?.spawn(transfer.run());
        Ok(reader)
    }

    fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.reference.as_str())
    }

    fn check_size(&self, size: u64) -> Result<(), IngestError> {
        let limit = self.document_bytes;
        if size > limit { Err(self.fail(Problem::TooLarge(limit).into())) } else { Ok(()) }
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
        self.reference.as_str()
    }

    fn manifest(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        self.check_size(size)?;
        let kept = self.kept.as_ref().and_then(KeptMetadata::manifest);
        match kept.filter(|(kept, _)| kept == digest) {
            Some((_, text)) => Ok(text.as_bytes().to_owned()),
            None => self.fetch(Name::Digest(digest)).map(|document| document.text),
        }
    }

    fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        use std::io::Read as _;
        if let Some(text) = self.kept.as_ref().and_then(|kept| kept.config_of(digest)) {
            return Ok(text.as_bytes().to_owned());
        }
        self.check_size(size)?;
        let mut text = Vec::new();
        let read = self.blob(digest, size)?.read_to_end(&mut text);
        read.map_err(|error| self.fail(IngestProblem::reading(error)))?;
        Ok(text)
    }
}

impl Blobs for Registry {
    const STEP: LayerStep = LayerStep::Download;

    fn origin(&self) -> &str {
        self.reference.as_str()
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
        let part = part(&self.client, &layer.digest, layer.size, offset, length);
        self.runtime().ok()?.block_on(part)
    }

    fn stop(&self) {
        self.stop.stop();
    }

    fn cost(&self) -> Option<PullCost> {
        let cost = PullCost {
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes: self.client.received(),
        };
        self.has_layers.load(Ordering::Relaxed).then_some(cost)
    }
}
