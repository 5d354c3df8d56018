//! Resolving a manifest or an index with a known digest to an image for one platform.
//!
//! The source of the documents does not matter: each document must have the expected size and digest.
//!
//! The choice is made among descriptors, by media type, `artifactType`, `os.features` and platform; then one is resolved. Members
//! of an index that are no images are passed over, whatever they are. Of several that suit equally, the first is the image
//! (image index specification, `manifests`). The platform in a descriptor stands above the one in the config; where both are
//! unknown, the image suits every platform.

use std::cell::Cell;
use std::collections::HashSet;

use super::{SourceImage, SourceLayer, checked_diff_ids};
use crate::ingest::document::{
    Config, Descriptor, DocumentKind, Index, Manifest, OCI_LAYER, OCI_MANIFEST, blob_name, parse,
};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::layer::check_digest;
use crate::ingest::limits::{IngestLimits, LimitKey};
use crate::ingest::platform::Platform;
use crate::reference::Digest;

/// The maximum depth of indexes within indexes.
const MAX_INDEX_DEPTH: usize = 3;

/// The rank of an image whose platform is not known before its config is: the last one.
pub(super) const UNKNOWN: u32 = u32::MAX;

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

/// The members that were passed over on the way to an image: the reasons, if none is found.
#[derive(Debug, Default)]
pub(crate) struct PassedOver {
    /// The platforms of images for other machines.
    foreign: Vec<Platform>,
    /// The kinds of what is no image that can run here.
    kinds: Vec<String>,
    /// The first problem of what turned out to be no image.
    problem: Option<IngestError>,
}

impl PassedOver {
    /// Adds an image for another platform.
    pub(super) fn foreign(&mut self, platform: Platform) {
        self.foreign.push(platform);
    }
}

/// A member of an index that may be the image for the wanted platform.
pub(super) struct Candidate<'d> {
    descriptor: &'d Descriptor,
    platform: Platform,
    pub(super) rank: u32,
}

/// A resolver that finds images for one platform.
pub(crate) struct Resolver<'a> {
    documents: &'a dyn Documents,
    pub(super) wanted: Platform,
    pub(super) limits: &'a IngestLimits,
    /// The number of bytes of documents that may still be read. Otherwise indexes that refer to the same few
    /// documents again and again would take endless time, and images that do so endless memory.
    left: Cell<u64>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(documents: &'a dyn Documents, wanted: &Platform, limits: &'a IngestLimits) -> Self {
        let left = Cell::new(limits.all_documents_bytes);
        Self { documents, wanted: wanted.clone(), limits, left }
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

    /// Returns the best image among candidates, or `None` if none is one: `passed` has the reasons then.
    pub(super) fn choose(
        &self,
        mut candidates: Vec<Candidate<'_>>,
        depth: usize,
        passed: &mut PassedOver,
    ) -> Result<Option<SourceImage>, IngestError> {
        // Stable: of several that suit equally, the first counts.
        candidates.sort_by_key(|candidate| candidate.rank);
        for candidate in candidates {
            let is_known = candidate.platform.is_known();
            match self.resolve(candidate, depth, passed) {
                Ok(Some(image)) => return Ok(Some(image)),
                Ok(None) => {}
                // What turns out to be no image is passed over as well. What says of itself that it is the one must be there.
                Err(error) if is_passed_over(&error, is_known) => drop(passed.problem.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns a member of an index as a candidate, or `None` if it is passed over.
    pub(super) fn candidate<'d>(
        &self,
        descriptor: &'d Descriptor,
        passed: &mut PassedOver,
    ) -> Option<Candidate<'d>> {
        if let Some(kind) = descriptor.foreign_kind() {
            passed.kinds.push(kind);
            return None;
        }
        let platform = descriptor.platform();
        let Some(rank) = self.wanted.rank(&platform) else {
            passed.foreign(platform);
            return None;
        };
        let rank = if platform.is_known() { rank } else { UNKNOWN };
        Some(Candidate { descriptor, platform, rank })
    }

    fn resolve(
        &self,
        candidate: Candidate<'_>,
        depth: usize,
        passed: &mut PassedOver,
    ) -> Result<Option<SourceImage>, IngestError> {
        let Candidate { descriptor, platform, .. } = candidate;
        let digest = descriptor.digest("index.json").map_err(|problem| self.fail(problem))?;
        self.count(descriptor.size)?;
        let text = self.documents.manifest(&digest, descriptor.size)?;
        self.verify(&digest, descriptor.size, &text)?;
        let media_type = descriptor.media_type.as_deref();
        self.document(Document { digest, text, media_type, platform, depth }, passed)
    }

    /// Resolves the document that a reference names, a manifest or an index.
    ///
    /// # Errors
    /// Fails if it leads to no image for the wanted platform.
    #[cfg(feature = "registry")]
    pub(crate) fn top(
        &self,
        digest: Digest,
        text: Vec<u8>,
        media_type: Option<&str>,
    ) -> Result<SourceImage, IngestError> {
        let mut passed = PassedOver::default();
        let platform = Platform::new("", "", None);
        let document = Document { digest: digest.clone(), text, media_type, platform, depth: 0 };
        let image = self.document(document, &mut passed)?;
        image.ok_or_else(|| self.nothing(passed, IngestProblem::EmptyIndex(digest)))
    }

    fn document(
        &self,
        document: Document<'_>,
        passed: &mut PassedOver,
    ) -> Result<Option<SourceImage>, IngestError> {
        let Document { digest, text, media_type, platform, depth } = document;
        let name = digest.as_str();
        match DocumentKind::of(name, media_type, &text).map_err(|problem| self.fail(problem))? {
            DocumentKind::Manifest => {
                let image = self.manifest(digest, text, media_type, &platform)?;
                if platform.is_known() || self.wanted.rank(&image.platform).is_some() {
                    return Ok(Some(image));
                }
                passed.foreign(image.platform);
                Ok(None)
            }
            DocumentKind::Index if depth < MAX_INDEX_DEPTH => {
                let index: Index = parse(name, &text).map_err(|problem| self.fail(problem))?;
                let members = index.manifests.iter();
                let candidates = members.filter_map(|member| self.candidate(member, passed)).collect();
                self.choose(candidates, depth + 1, passed)
            }
            DocumentKind::Index => Err(self.fail(IngestProblem::Document {
                document: digest.to_string(),
                why: "it is an index within indexes without end".to_owned(),
            })),
        }
    }

    fn manifest(
        &self,
        digest: Digest,
        text: Vec<u8>,
        media_type: Option<&str>,
        platform: &Platform,
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
        parts.assemble(platform, self.limits).map_err(|problem| self.fail(problem))
    }

    /// Refuses a document whose digest or size is not the expected one.
    fn verify(&self, digest: &Digest, size: u64, text: &[u8]) -> Result<(), IngestError> {
        if text.len() as u64 != size {
            let (what, found) = (digest.to_string(), text.len() as u64);
            return Err(self.fail(IngestProblem::WrongSize { what, expected: size, found }));
        }
        check_digest("a document", digest, Digest::of(text)).map_err(|problem| self.fail(problem))
    }

    /// Returns the error for a source without an image for the wanted platform: the reasons for which all of its images
    /// were passed over, or `nothing` if there were none.
    pub(super) fn nothing(&self, passed: PassedOver, nothing: IngestProblem) -> IngestError {
        let PassedOver { foreign, mut kinds, problem } = passed;
        let once = |names: &mut Vec<String>| {
            let mut seen = HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
        };
        if !foreign.is_empty() {
            let mut found: Vec<String> = foreign.iter().map(Platform::to_string).collect();
            once(&mut found);
            return self.fail(IngestProblem::Platform { wanted: self.wanted.clone(), found });
        }
        once(&mut kinds);
        problem.unwrap_or_else(|| {
            self.fail(if kinds.is_empty() { nothing } else { IngestProblem::NoImage(kinds) })
        })
    }

    pub(super) fn text(&self, name: &str, bytes: Vec<u8>) -> Result<String, IngestError> {
        String::from_utf8(bytes).map_err(|_| {
            let (document, why) = (name.to_owned(), "it is not UTF-8".to_owned());
            self.fail(IngestProblem::Document { document, why })
        })
    }
}

/// Returns whether an error of a member of an index means that the member is passed over. Blobs of members that are not images
/// for the wanted platform may be missing (image layout specification, "Index").
fn is_passed_over(error: &IngestError, is_known: bool) -> bool {
    match error.problem() {
        IngestProblem::MediaType(_) => true,
        IngestProblem::Missing(_) | IngestProblem::NotInRegistry => !is_known,
        _ => false,
    }
}

/// A manifest or an index, with the digest that it was asked for by.
struct Document<'a> {
    digest: Digest,
    text: Vec<u8>,
    /// The media type in its descriptor.
    media_type: Option<&'a str>,
    /// The platform in its descriptor.
    platform: Platform,
    depth: usize,
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
    fn assemble(self, platform: &Platform, limits: &IngestLimits) -> Result<SourceImage, IngestProblem> {
        let Parts { digest, media_type, manifest, manifest_json, config_digest, config_json } = self;
        let config: Config = parse(config_digest.as_str(), config_json.as_bytes())?;
        let diff_ids = checked_diff_ids(&config, &config_digest, manifest.layers.len(), limits)?;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let blob_digest = layer.digest(digest.as_str())?;
            layers.push(SourceLayer {
                diff_id,
                blob: blob_name(&blob_digest),
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
            platform: platform.clone().or(&config.platform()),
            config,
            layers,
        })
    }
}
