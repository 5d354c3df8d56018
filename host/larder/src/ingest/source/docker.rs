//! The images of a `docker save` archive. Its `manifest.json` lists config, layers and tags.

use std::collections::{HashMap, hash_map};
use std::io::{self, Read as _};

use serde::Deserialize;

use super::resolve::{PassedOver, Resolver};
use super::{SourceImage, SourceLayer, SourceName, check_count, checked_diff_ids};
use crate::ingest::bundle::{Bundle, Section, SectionId};
use crate::ingest::compression::Compression;
use crate::ingest::document::{Config, OCI_LAYER, OCI_MANIFEST, parse, synthesise_manifest};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::ingest::layer::check_digest;
use crate::reference::Digest;

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<Option<String>>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerEntry {
    /// Returns the digest in the name of the config, if there is one.
    fn config_digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.config_hex()).parse().ok()
    }

    fn config_hex(&self) -> &str {
        self.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json")
    }

    pub(super) fn is_of(&self, image: &SourceImage) -> bool {
        self.config_hex() == image.config_digest.hex()
    }

    /// Returns the names of the image.
    pub(super) fn names(&self) -> impl Iterator<Item = SourceName> {
        // Docker's name of an image that has lost its own.
        let named = self.repo_tags.iter().flatten().flatten().filter(|name| !name.contains("<none>"));
        named.cloned().map(SourceName::Whole)
    }
}

/// Returns the images in `manifest.json`.
pub(super) fn entries(
    bundle: &Bundle,
    resolver: &Resolver<'_>,
    section: &Section,
) -> Result<Vec<DockerEntry>, IngestError> {
    let text = bundle.document(section, "manifest.json")?;
    let entries: Vec<DockerEntry> =
        parse("manifest.json", &text).map_err(|problem| resolver.fail(problem))?;
    check_count(resolver, entries.len())?;
    Ok(entries)
}

/// The digests of blobs that were computed by reading them, by position: links can make many layers of one blob.
type Digests = HashMap<SectionId, Digest>;

/// Returns the images for the wanted platform.
pub(super) fn images(
    bundle: &Bundle,
    resolver: &Resolver<'_>,
    entries: &[DockerEntry],
    passed: &mut PassedOver,
) -> Result<Vec<SourceImage>, IngestError> {
    let mut digests = Digests::new();
    let mut images = Vec::new();
    for entry in entries {
        images.extend(image(bundle, resolver, entry, &mut digests, passed)?);
    }
    Ok(images)
}

fn image(
    bundle: &Bundle,
    resolver: &Resolver<'_>,
    entry: &DockerEntry,
    digests: &mut Digests,
    passed: &mut PassedOver,
) -> Result<Option<SourceImage>, IngestError> {
    let section = bundle.get(&entry.config)?;
    resolver.count(section.len())?;
    let text = bundle.document(&section, &entry.config)?;
    let config_digest = Digest::of(&text);
    let fail = |problem| resolver.fail(problem);
    if let Some(expected) = entry.config_digest() {
        check_digest("the config", &expected, config_digest.clone()).map_err(fail)?;
    }
    let config: Config = parse(&entry.config, &text).map_err(fail)?;
    let platform = config.platform();
    if resolver.wanted.rank(&platform).is_none() {
        passed.foreign(platform);
        return Ok(None);
    }
    let files = entry.layers.as_deref().unwrap_or_default();
    let diff_ids = checked_diff_ids(&config, &config_digest, files.len(), resolver.limits).map_err(fail)?;
    let mut layers = Vec::new();
    for (file, diff_id) in files.iter().zip(diff_ids) {
        layers.push(layer(bundle, file, diff_id, digests)?);
    }
    let described: Vec<_> =
        layers.iter().map(|layer| (layer.media_type.clone(), layer.digest.clone(), layer.size)).collect();
    let manifest_json = synthesise_manifest(&config_digest, text.len() as u64, &described);
    let image = SourceImage {
        names: entry.names().collect(),
        manifest: Digest::of(manifest_json.as_bytes()),
        manifest_media_type: OCI_MANIFEST.to_owned(),
        manifest_json,
        config_json: resolver.text(&entry.config, text)?,
        config_digest,
        platform,
        config,
        layers,
    };
    Ok(Some(image))
}

/// Returns a layer as it is stored. The digest of an uncompressed layer is its diff ID, and a compressed
/// layer is read to compute its digest.
fn layer(
    bundle: &Bundle,
    file: &str,
    diff_id: Digest,
    digests: &mut Digests,
) -> Result<SourceLayer, IngestError> {
    let section = bundle.get(file)?;
    let read = |problem| IngestProblem::reading(problem).of(bundle.name()).at_entry(file.as_bytes());
    let mut head = [0; 4];
    let length = section.reader().read(&mut head).map_err(read)?;
    let (suffix, digest) = match Compression::detect(&head[..length]) {
        Compression::None => ("", diff_id.clone()),
        compressed => {
            let suffix = if compressed == Compression::Gzip { "+gzip" } else { "+zstd" };
            (suffix, digest_of(bundle, &section, digests).map_err(read)?)
        }
    };
    let media_type = format!("{OCI_LAYER}{suffix}");
    Ok(SourceLayer { diff_id, digest, size: section.len(), media_type, blob: file.to_owned() })
}

fn digest_of(bundle: &Bundle, section: &Section, digests: &mut Digests) -> io::Result<Digest> {
    Ok(match digests.entry(section.id()?) {
        hash_map::Entry::Occupied(known) => known.get().clone(),
        hash_map::Entry::Vacant(unknown) => unknown.insert(bundle.digest(section)?).clone(),
    })
}
