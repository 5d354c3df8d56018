//! Resolving a manifest or an index with a known digest to an image for this machine.
//!
//! The source of the documents does not matter: each document must have the expected size and digest.

use std::cell::Cell;
use std::collections::HashSet;

use super::{SourceImage, SourceLayer, checked_diff_ids};
use crate::ingest::document::{
    Config, Descriptor, DocumentKind, Index, Manifest, OCI_LAYER, OCI_MANIFEST, parse,
};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::layer::check_digest;
use crate::ingest::limits::{IngestLimits, LimitKey};
use crate::ingest::platform::Platform;
use crate::reference::Digest;

/// The maximum depth of indexes within indexes.
const MAX_INDEX_DEPTH: usize = 3;

/// The minimum number of bytes that a document counts as, because each look-up has a cost.
const SMALLEST_DOCUMENT: u64 = 1 << 10;

/// A source of manifests, indexes and configs.
pub(crate) trait Documents {
    /// Returns the path or reference that the documents belong to, for errors.
    fn origin(&self) -> &str;

    /// Returns a manifest or an index, which is not checked yet.
    fn manifest(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError>;

    /// Returns a config, which is not checked yet.
    fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError>;
}

/// The result of resolving a descriptor.
pub(crate) struct Candidate {
    /// The rank for this machine: a lower rank is better.
    pub(super) rank: u32,
    /// The image, or the platforms of the images if none is for this machine.
    pub(super) image: Result<SourceImage, Vec<Platform>>,
}

impl Candidate {
    pub(super) fn foreign(platform: Platform) -> Self {
        Self { rank: u32::MAX, image: Err(vec![platform]) }
    }
}

/// A resolver that finds images for this machine.
pub(crate) struct Resolver<'a> {
    documents: &'a dyn Documents,
    pub(super) wanted: Platform,
    pub(super) limits: &'a IngestLimits,
    /// The number of bytes of documents that may still be read. Otherwise indexes that refer to the same few
    /// documents again and again would take endless time, and images that do so endless memory.
    left: Cell<u64>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(documents: &'a dyn Documents, limits: &'a IngestLimits) -> Self {
        let left = Cell::new(limits.all_documents_bytes);
        Self { documents, wanted: Platform::of_this_machine(), limits, left }
    }

    /// Counts a document of this size that is about to be read, or refused for its size. Fails if the limit on all
    /// documents is exceeded.
    pub(super) fn count(&self, size: u64) -> Result<(), IngestError> {
        let size = size.min(self.limits.document_bytes).max(SMALLEST_DOCUMENT);
        let left = self
            .left
            .get()
            .checked_sub(size)
            .ok_or_else(|| self.fail(IngestProblem::limit(self.limits, LimitKey::AllDocumentsBytes)))?;
        self.left.set(left);
        Ok(())
    }

    pub(super) fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.documents.origin())
    }

    /// Resolves a descriptor of an index. Returns `None` if it leads to no image.
    pub(super) fn described(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<Candidate>, IngestError> {
        let told = descriptor.platform.as_ref().map(|platform| platform.parse());
        let told = told.filter(|platform| !platform.os().is_empty());
        if let Some(platform) = told.clone().filter(|platform| self.wanted.rank(platform).is_none()) {
            return Ok(Some(Candidate::foreign(platform)));
        }
        let digest = descriptor.digest("index.json").map_err(|problem| self.fail(problem))?;
        self.count(descriptor.size)?;
        let text = self.documents.manifest(&digest, descriptor.size)?;
        self.verify(&digest, descriptor.size, &text)?;
        let found = self.document(digest, text, descriptor.media_type.as_deref(), depth)?;
        Ok(found.map(|mut candidate| {
            // Whoever wrote the index knows the variant; whether it runs at all is what the config says.
            if candidate.image.is_ok()
                && let Some(rank) = told.and_then(|told| self.wanted.rank(&told))
            {
                candidate.rank = rank;
            }
            candidate
        }))
    }

    /// Resolves a manifest or an index of this digest. Returns `None` if it leads to no image.
    pub(crate) fn document(
        &self,
        digest: Digest,
        text: Vec<u8>,
        media_type: Option<&str>,
        depth: usize,
    ) -> Result<Option<Candidate>, IngestError> {
        match DocumentKind::of(media_type, &text).map_err(|problem| self.fail(problem))? {
            DocumentKind::Manifest => {
                let image = self.manifest(digest, text, media_type)?;
                let platform = image.config.platform();
                Ok(Some(match self.wanted.rank(&platform) {
                    Some(rank) => Candidate { rank, image: Ok(image) },
                    None => Candidate::foreign(platform),
                }))
            }
            DocumentKind::Index if depth < MAX_INDEX_DEPTH => self.index(&digest, &text, depth),
            DocumentKind::Index => Err(self.fail(IngestProblem::Document {
                document: digest.to_string(),
                why: "it is an index within indexes without end".to_owned(),
            })),
        }
    }

    /// Returns the best image of an index, or all of its platforms if none is for this machine.
    fn index(&self, digest: &Digest, text: &[u8], depth: usize) -> Result<Option<Candidate>, IngestError> {
        let index: Index = parse(digest.as_str(), text).map_err(|problem| self.fail(problem))?;
        let mut best: Option<Candidate> = None;
        let mut foreign: Vec<Platform> = Vec::new();
        for inner in index.manifests.iter().filter(|inner| !inner.is_attached()) {
            let Some(found) = self.described(inner, depth + 1)? else { continue };
            match &found.image {
                Err(platforms) => foreign.extend(platforms.iter().cloned()),
                Ok(_) if best.as_ref().is_none_or(|best| found.rank < best.rank) => best = Some(found),
                Ok(_) => {}
            }
        }
        Ok(best
            .or_else(|| (!foreign.is_empty()).then_some(Candidate { rank: u32::MAX, image: Err(foreign) })))
    }

    fn manifest(
        &self,
        digest: Digest,
        text: Vec<u8>,
        media_type: Option<&str>,
    ) -> Result<SourceImage, IngestError> {
        let name = digest.to_string();
        let manifest: Manifest = parse(&name, &text).map_err(|problem| self.fail(problem))?;
        manifest.check_media_types().map_err(|problem| self.fail(problem))?;
        let config_digest = manifest.config.digest(&name).map_err(|problem| self.fail(problem))?;
        self.count(manifest.config.size)?;
        let config_text = self.documents.config(&config_digest, manifest.config.size)?;
        self.verify(&config_digest, manifest.config.size, &config_text)?;
        let manifest_json = self.text(&name, text)?;
        let config_json = self.text(config_digest.as_str(), config_text)?;
        let parts = Parts { digest, media_type, manifest, manifest_json, config_digest, config_json };
        parts.assemble(self.limits).map_err(|problem| self.fail(problem))
    }

    /// Refuses a document whose digest or size is not the expected one.
    fn verify(&self, digest: &Digest, size: u64, text: &[u8]) -> Result<(), IngestError> {
        if text.len() as u64 != size {
            let (what, found) = (digest.to_string(), text.len() as u64);
            return Err(self.fail(IngestProblem::WrongSize { what, expected: size, found }));
        }
        check_digest("a document", digest, Digest::of(text)).map_err(|problem| self.fail(problem))
    }

    /// Returns the images for this machine. If all images are for other platforms, fails with that problem. If there
    /// are no images at all, fails with `nothing`.
    pub(crate) fn suitable(
        &self,
        found: impl IntoIterator<Item = Candidate>,
        nothing: IngestProblem,
    ) -> Result<Vec<SourceImage>, IngestError> {
        let mut images = Vec::new();
        let mut foreign: Vec<String> = Vec::new();
        for candidate in found {
            match candidate.image {
                Ok(image) => images.push(image),
                Err(platforms) => foreign.extend(platforms.iter().map(Platform::to_string)),
            }
        }
        if !images.is_empty() {
            return Ok(images);
        }
        if foreign.is_empty() {
            return Err(self.fail(nothing));
        }
        let mut seen = HashSet::new();
        foreign.retain(|platform| seen.insert(platform.clone()));
        Err(self.fail(IngestProblem::Platform { wanted: self.wanted.clone(), found: foreign }))
    }

    pub(super) fn text(&self, name: &str, bytes: Vec<u8>) -> Result<String, IngestError> {
        String::from_utf8(bytes).map_err(|_| {
            let (document, why) = (name.to_owned(), "it is not UTF-8".to_owned());
            self.fail(IngestProblem::Document { document, why })
        })
    }
}

/// A manifest and its config, both with the expected digests.
struct Parts<'a> {
    digest: Digest,
    media_type: Option<&'a str>,
    manifest: Manifest,
    manifest_json: String,
    config_digest: Digest,
    config_json: String,
}

impl Parts<'_> {
    /// Makes the image, without names.
    fn assemble(self, limits: &IngestLimits) -> Result<SourceImage, IngestProblem> {
        let Parts { digest, media_type, manifest, manifest_json, config_digest, config_json } = self;
        let config: Config = parse(config_digest.as_str(), config_json.as_bytes())?;
        let diff_ids = checked_diff_ids(&config, &config_digest, manifest.layers.len(), limits)?;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let blob_digest = layer.digest(digest.as_str())?;
            layers.push(SourceLayer {
                diff_id,
                blob: format!("blobs/sha256/{}", blob_digest.hex()),
                digest: blob_digest,
                size: layer.size,
                media_type: layer.media_type.clone().unwrap_or_else(|| OCI_LAYER.to_owned()),
            });
        }
        let own = manifest.media_type.as_deref().or(media_type).unwrap_or(OCI_MANIFEST);
        Ok(SourceImage {
            names: Vec::new(),
            manifest_media_type: own.to_owned(),
            manifest: digest,
            manifest_json,
            config_digest,
            config_json,
            config,
            layers,
        })
    }
}
