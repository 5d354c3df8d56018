//! The images in a bundle: a `docker save` archive or an OCI image layout. Each image is the one for this machine's
//! platform.
//!
//! A `docker save` archive has a `manifest.json` with config, layers and tags, and no manifests. A manifest is made of
//! config and layers ([`synthesise_manifest`]), each layer as it is stored. An OCI image layout has an `index.json`.
//! Newer versions of Docker write both. Then the layout is used, because it has the real manifests, with the tags of
//! both.
//!
//! The names of an image in a layout are its annotation `io.containerd.image.name`, and its annotation
//! `org.opencontainers.image.ref.name` if that is a whole name: one with a `/` or a `:`. A tag alone, such as
//! `latest`, is not a name.

mod docker;
mod layout;
mod resolve;

pub(crate) use resolve::{Documents, Resolver};

use super::account::check_limit;
use super::bundle::Bundle;
use super::document::Config;
use super::error::{IngestError, IngestProblem};
use super::limits::{IngestLimits, LimitKey};
use crate::reference::{Digest, Reference};

/// An image to be added to the cache: everything except the content of its layers.
#[derive(Debug, Clone)]
pub(crate) struct SourceImage {
    pub(crate) names: Vec<String>,
    pub(crate) manifest: Digest,
    pub(crate) manifest_media_type: String,
    pub(crate) manifest_json: String,
    pub(crate) config_digest: Digest,
    pub(crate) config_json: String,
    pub(crate) config: Config,
    /// The layers, from bottom to top.
    pub(crate) layers: Vec<SourceLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct SourceLayer {
    pub(crate) diff_id: Digest,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    /// The name of the blob in its source.
    pub(crate) blob: String,
}

/// An image and its names.
#[derive(Debug)]
pub(crate) struct NamedImage {
    pub(crate) image: SourceImage,
    pub(crate) references: Vec<Reference>,
}

/// Returns the images of a bundle, with the names in it, or with `tags` instead.
pub(crate) fn find_images(
    bundle: &Bundle,
    tags: &[Reference],
    limits: &IngestLimits,
) -> Result<Vec<NamedImage>, IngestError> {
    let layout = bundle.find("index.json")?;
    let docker = bundle.find("manifest.json")?;
    let resolver = Resolver::new(bundle, limits);
    let docker = docker.map(|section| docker::entries(bundle, &resolver, &section)).transpose()?;
    let mut images = match (layout, docker) {
        (Some(index), docker) => {
            let mut images = layout::images(bundle, &resolver, &index)?;
            for image in &mut images {
                let same = docker.iter().flatten().filter(|entry| entry.is_of(image));
                let tags: Vec<String> = same.flat_map(|entry| entry.tags().cloned()).collect();
                image.names.extend(tags);
            }
            images
        }
        (None, Some(entries)) => docker::images(bundle, &resolver, &entries)?,
        (None, None) => return Err(IngestProblem::NotAnArchive.of(bundle.name())),
    };
    merge_same(&mut images);
    name(images, tags).map_err(|problem| problem.of(bundle.name()))
}

/// Refuses archives with more images than the limits allow.
fn check_count(resolver: &Resolver<'_>, images: usize) -> Result<(), IngestError> {
    let checked = check_limit(images as u64, resolver.limits, LimitKey::Images);
    checked.map_err(|problem| resolver.fail(problem))
}

/// Assigns the names to images.
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

/// Merges images that are the same under several names.
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
    check_limit(layers as u64, limits, LimitKey::Layers)?;
    Ok(diff_ids)
}
