//! What images a bundle holds: `docker save` archives and OCI image layouts, each image for this machine's platform.
//!
//! A `docker save` archive has a `manifest.json` with config, layers and tags, and no manifests: one is made of config
//! and layers ([`synthesise_manifest`]), each layer as it is stored. An OCI image layout has an `index.json`. Newer
//! Dockers write both; then the layout counts, whose manifests are real ones, and the tags of both.
//!
//! Names of an image in a layout are its annotations `io.containerd.image.name`, and
//! `org.opencontainers.image.ref.name` where that is a whole name: one with a `/` or a `:`. A mere tag, such as
//! `latest`, names nothing by itself.

use serde::Deserialize;

use super::bundle::{Bundle, Section};
use super::compression::Compression;
use super::document::{
    Config, Descriptor, DocumentKind, Index, Manifest, OCI_LAYER, OCI_MANIFEST, parse, synthesise_manifest,
};
use super::error::{IngestError, IngestProblem};
use super::layer::check_digest;
use super::limits::IngestLimits;
use super::platform::Platform;
use crate::reference::{Digest, Reference};

/// An index within an index within an index is enough.
const MAX_INDEX_DEPTH: usize = 3;

/// An image that is to be taken in: everything of it but its layers' content.
#[derive(Debug, Clone)]
pub(crate) struct SourceImage {
    pub(crate) names: Vec<String>,
    pub(crate) manifest: Digest,
    pub(crate) manifest_media_type: String,
    pub(crate) manifest_json: String,
    pub(crate) config_digest: Digest,
    pub(crate) config_json: String,
    pub(crate) config: Config,
    /// From bottom to top.
    pub(crate) layers: Vec<SourceLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct SourceLayer {
    pub(crate) diff_id: Digest,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    /// Under which name the blob is found.
    pub(crate) blob: String,
}

/// An image and the names that it is to get.
#[derive(Debug)]
pub(crate) struct NamedImage {
    pub(crate) image: SourceImage,
    pub(crate) references: Vec<Reference>,
}

/// The images of a bundle, with the names in it, or `tags` in their place.
pub(crate) fn find_images(
    bundle: &Bundle,
    tags: &[Reference],
    limits: &IngestLimits,
) -> Result<Vec<NamedImage>, IngestError> {
    let layout = bundle.find("index.json")?;
    let docker = bundle.find("manifest.json")?;
    let docker = docker.map(|section| docker_entries(bundle, &section)).transpose()?;
    let search = Search { bundle, wanted: Platform::of_this_machine(), limits };
    let mut images = match (layout, docker) {
        (Some(index), docker) => {
            let mut images = search.layout(&index)?;
            for image in &mut images {
                let same = docker.iter().flatten().filter(|entry| entry.is_of(image));
                let tags: Vec<String> =
                    same.flat_map(|entry| entry.repo_tags.iter().flatten().cloned()).collect();
                image.names.extend(tags);
            }
            images
        }
        (None, Some(entries)) => search.docker(&entries)?,
        (None, None) => return Err(IngestProblem::NotAnArchive.of(bundle.name())),
    };
    merge_same(&mut images);
    name(images, tags).map_err(|problem| problem.of(bundle.name()))
}

/// Gives images their names.
fn name(images: Vec<SourceImage>, tags: &[Reference]) -> Result<Vec<NamedImage>, IngestProblem> {
    if !tags.is_empty() {
        return match <[SourceImage; 1]>::try_from(images) {
            Ok([image]) => Ok(vec![NamedImage { image, references: tags.to_vec() }]),
            Err(images) => Err(IngestProblem::Ambiguous(
                images
                    .iter()
                    .map(|image| image.names.first().cloned().unwrap_or_else(|| image.manifest.to_string()))
                    .collect(),
            )),
        };
    }
    let named = images.into_iter().map(|image| {
        if image.names.is_empty() {
            return Err(IngestProblem::Unnamed(image.manifest));
        }
        let references =
            image.names.iter().map(|name| name.parse()).collect::<Result<Vec<Reference>, _>>()?;
        Ok(NamedImage { image, references })
    });
    named.collect()
}

/// Makes one of images that are the same under several names.
fn merge_same(images: &mut Vec<SourceImage>) {
    let mut merged: Vec<SourceImage> = Vec::new();
    for image in images.drain(..) {
        match merged.iter_mut().find(|other| other.manifest == image.manifest) {
            Some(other) => other.names.extend(image.names),
            None => merged.push(image),
        }
    }
    for image in &mut merged {
        let mut seen = std::collections::HashSet::new();
        image.names.retain(|name| seen.insert(name.clone()));
    }
    *images = merged;
}

/// An image of the `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerEntry {
    /// The digest in the name of the config, where there is one.
    fn config_digest(&self) -> Option<Digest> {
        let name = self.config.rsplit('/').next().unwrap_or_default();
        format!("sha256:{}", name.trim_end_matches(".json")).parse().ok()
    }

    fn is_of(&self, image: &SourceImage) -> bool {
        self.config_digest().as_ref() == Some(&image.config_digest)
    }
}

fn docker_entries(bundle: &Bundle, section: &Section) -> Result<Vec<DockerEntry>, IngestError> {
    let text = bundle.document(section, "manifest.json")?;
    parse("manifest.json", &text).map_err(|problem| problem.of(bundle.name()))
}

/// What an entry of an index leads to.
struct Candidate {
    /// How well it suits: less is better.
    rank: u32,
    /// An image, or the platform that it is for where that is another one.
    image: Result<SourceImage, Platform>,
}

impl Candidate {
    fn foreign(platform: Platform) -> Self {
        Self { rank: u32::MAX, image: Err(platform) }
    }

    fn names(&self) -> Option<&Vec<String>> {
        self.image.as_ref().ok().map(|image| &image.names)
    }
}

struct Search<'a> {
    bundle: &'a Bundle,
    wanted: Platform,
    limits: &'a IngestLimits,
}

impl Search<'_> {
    fn fail(&self, problem: IngestProblem) -> IngestError {
        problem.of(self.bundle.name())
    }

    /// The images for this machine. An archive without any is refused, one with some of them is not.
    fn suitable(&self, found: Vec<Result<SourceImage, Platform>>) -> Result<Vec<SourceImage>, IngestError> {
        let mut images = Vec::new();
        let mut foreign: Vec<String> = Vec::new();
        for image in found {
            match image {
                Ok(image) => images.push(image),
                Err(platform) if foreign.contains(&platform.to_string()) => {}
                Err(platform) => foreign.push(platform.to_string()),
            }
        }
        if images.is_empty() && !foreign.is_empty() {
            return Err(self.fail(IngestProblem::Platform { wanted: self.wanted.clone(), found: foreign }));
        }
        if images.is_empty() {
            return Err(self.fail(IngestProblem::NotAnArchive));
        }
        Ok(images)
    }

    fn docker(&self, entries: &[DockerEntry]) -> Result<Vec<SourceImage>, IngestError> {
        let found = entries.iter().map(|entry| self.docker_image(entry)).collect::<Result<Vec<_>, _>>()?;
        self.suitable(found)
    }

    fn docker_image(&self, entry: &DockerEntry) -> Result<Result<SourceImage, Platform>, IngestError> {
        let section = self.bundle.get(&entry.config)?;
        let text = self.bundle.document(&section, &entry.config)?;
        let config_digest = Digest::of(&text);
        if let Some(expected) = entry.config_digest() {
            check_digest("the config", &expected, config_digest.clone())
                .map_err(|problem| self.fail(problem))?;
        }
        let config: Config = parse(&entry.config, &text).map_err(|problem| self.fail(problem))?;
        if self.wanted.rank(&config.platform()).is_none() {
            return Ok(Err(config.platform()));
        }
        let files = entry.layers.as_deref().unwrap_or_default();
        let diff_ids = self.diff_ids(&config, &config_digest, files.len())?;
        let mut layers = Vec::new();
        for (file, diff_id) in files.iter().zip(diff_ids) {
            layers.push(self.docker_layer(file, diff_id)?);
        }
        let described: Vec<_> =
            layers.iter().map(|layer| (layer.media_type.clone(), layer.digest.clone(), layer.size)).collect();
        let manifest_json = synthesise_manifest(&config_digest, text.len() as u64, &described);
        Ok(Ok(SourceImage {
            names: entry.repo_tags.clone().unwrap_or_default(),
            manifest: Digest::of(manifest_json.as_bytes()),
            manifest_media_type: OCI_MANIFEST.to_owned(),
            manifest_json,
            config_json: self.text(&entry.config, text)?,
            config_digest,
            config,
            layers,
        }))
    }

    /// A layer as it is stored. One that is not compressed has its diff ID for a digest; another is read for it.
    fn docker_layer(&self, file: &str, diff_id: Digest) -> Result<SourceLayer, IngestError> {
        use std::io::Read as _;
        let section = self.bundle.get(file)?;
        let read = |problem| self.fail(IngestProblem::reading(problem)).at_entry(file.as_bytes());
        let mut head = [0; 4];
        let length = section.reader().read(&mut head).map_err(read)?;
        let (suffix, digest) = match Compression::detect(&head[..length]) {
            Compression::None => ("", diff_id.clone()),
            compressed => {
                let suffix = if compressed == Compression::Gzip { "+gzip" } else { "+zstd" };
                (suffix, section.digest().map_err(read)?)
            }
        };
        let media_type = format!("{OCI_LAYER}{suffix}");
        Ok(SourceLayer { diff_id, digest, size: section.len(), media_type, blob: file.to_owned() })
    }

    fn layout(&self, index: &Section) -> Result<Vec<SourceImage>, IngestError> {
        let text = self.bundle.document(index, "index.json")?;
        let index: Index = parse("index.json", &text).map_err(|problem| self.fail(problem))?;
        let mut found: Vec<Candidate> = Vec::new();
        for descriptor in index.manifests.iter().filter(|descriptor| !descriptor.is_attached()) {
            let Some(mut candidate) = self.described(descriptor, 0)? else { continue };
            let names = names_of(descriptor);
            if let Ok(image) = &mut candidate.image {
                image.names.clone_from(&names);
            }
            // Of several images under one name, for several variants of this machine, the best counts.
            match found.iter_mut().find(|other| !names.is_empty() && other.names() == Some(&names)) {
                Some(other) if candidate.rank < other.rank => *other = candidate,
                Some(_) if candidate.image.is_ok() => {}
                _ => found.push(candidate),
            }
        }
        self.suitable(found.into_iter().map(|candidate| candidate.image).collect())
    }

    /// The image that a descriptor of an index leads to. None where it leads to nothing.
    fn described(&self, descriptor: &Descriptor, depth: usize) -> Result<Option<Candidate>, IngestError> {
        let told = descriptor.platform.as_ref().map(|platform| platform.parse());
        let told = told.filter(|platform| !platform.os().is_empty());
        if let Some(platform) = told.clone().filter(|platform| self.wanted.rank(platform).is_none()) {
            return Ok(Some(Candidate::foreign(platform)));
        }
        let digest = descriptor.digest("index.json").map_err(|problem| self.fail(problem))?;
        let text = self.verified(&digest, descriptor.size)?;
        let kind = DocumentKind::of(descriptor.media_type.as_deref(), &text);
        match kind.map_err(|problem| self.fail(problem))? {
            DocumentKind::Manifest => {
                let image = self.manifest(digest, text, descriptor.media_type.as_deref())?;
                let platform = image.config.platform();
                // Whoever wrote the index knows the variant; whether it runs at all is what the config says.
                Ok(Some(match self.wanted.rank(&platform) {
                    Some(rank) => {
                        let rank = told.and_then(|told| self.wanted.rank(&told)).unwrap_or(rank);
                        Candidate { rank, image: Ok(image) }
                    }
                    None => Candidate::foreign(platform),
                }))
            }
            DocumentKind::Index if depth < MAX_INDEX_DEPTH => {
                let index: Index = parse(digest.as_str(), &text).map_err(|problem| self.fail(problem))?;
                let mut best: Option<Candidate> = None;
                for inner in index.manifests.iter().filter(|inner| !inner.is_attached()) {
                    let Some(found) = self.described(inner, depth + 1)? else { continue };
                    if best.as_ref().is_none_or(|best| found.rank < best.rank) {
                        best = Some(found);
                    }
                }
                Ok(best)
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
    ) -> Result<SourceImage, IngestError> {
        let name = digest.to_string();
        let manifest: Manifest = parse(&name, &text).map_err(|problem| self.fail(problem))?;
        manifest.check_media_types().map_err(|problem| self.fail(problem))?;
        let config_digest = manifest.config.digest(&name).map_err(|problem| self.fail(problem))?;
        let config_text = self.verified(&config_digest, manifest.config.size)?;
        let manifest_json = self.text(&name, text)?;
        let config_json = self.text(config_digest.as_str(), config_text)?;
        let parts = Parts { digest, media_type, manifest, manifest_json, config_digest, config_json };
        assemble(parts, self.limits).map_err(|problem| self.fail(problem))
    }

    fn diff_ids(&self, config: &Config, name: &Digest, layers: usize) -> Result<Vec<Digest>, IngestError> {
        checked_diff_ids(config, name, layers, self.limits).map_err(|problem| self.fail(problem))
    }

    /// A document that has the digest and size that were promised.
    fn verified(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        let section = self.bundle.blob(digest)?;
        if section.len() != size {
            let (what, found) = (digest.to_string(), section.len());
            return Err(self.fail(IngestProblem::WrongSize { what, expected: size, found }));
        }
        let text = self.bundle.document(&section, digest.as_str())?;
        check_digest("a document", digest, Digest::of(&text)).map_err(|problem| self.fail(problem))?;
        Ok(text)
    }

    fn text(&self, name: &str, bytes: Vec<u8>) -> Result<String, IngestError> {
        text(name, bytes).map_err(|problem| self.fail(problem))
    }
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, IngestProblem> {
    String::from_utf8(bytes)
        .map_err(|_| IngestProblem::Document { document: name.to_owned(), why: "it is not UTF-8".to_owned() })
}

/// A manifest and its config, both of the digests that they should have.
pub(crate) struct Parts<'a> {
    pub(crate) digest: Digest,
    pub(crate) media_type: Option<&'a str>,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_json: String,
    pub(crate) config_digest: Digest,
    pub(crate) config_json: String,
}

/// The image of a manifest and its config, without names.
pub(crate) fn assemble(parts: Parts<'_>, limits: &IngestLimits) -> Result<SourceImage, IngestProblem> {
    let Parts { digest, media_type, manifest, manifest_json, config_digest, config_json } = parts;
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

fn checked_diff_ids(
    config: &Config,
    name: &Digest,
    layers: usize,
    limits: &IngestLimits,
) -> Result<Vec<Digest>, IngestProblem> {
    let diff_ids = config.diff_ids(name.as_str())?;
    if diff_ids.len() != layers {
        return Err(IngestProblem::LayerCount { layers, diff_ids: diff_ids.len() });
    }
    if layers as u64 > limits.layers {
        return Err(IngestProblem::Limit { limit: limits.layers, unit: "layers" });
    }
    Ok(diff_ids)
}

/// The names that a descriptor of a layout gives its image.
fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty());
    let whole = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    annotation("io.containerd.image.name").or(whole).cloned().into_iter().collect()
}
