//! The images in a bundle: a `docker save` archive or an OCI image layout. Each image is the one for the
//! wanted platform.
//!
//! A `docker save` archive has a `manifest.json` with config, layers and tags, and no manifests. A manifest is made of
//! config and layers ([`synthesise_manifest`]), each layer as it is stored. An OCI image layout has an `index.json`.
//! Newer versions of Docker write both. Then the layout is used, because it has the real manifests, with the tags of
//! both.
//!
//! The names of an image in a layout are its annotation `io.containerd.image.name`, and its annotation
//! `org.opencontainers.image.ref.name`: a whole name if it has a `/` or a `:`, and otherwise a tag, such as `latest`, to which the
//! caller gives the repository. See [`names`].

mod docker;
mod layout;
mod names;
mod resolve;

pub(crate) use names::{NewName, Selection, Skipped, Wanted};
pub(crate) use resolve::{Documents, Resolver};

use std::collections::HashMap;

use resolve::PassedOver;

use super::account::check_limit;
use super::bundle::Bundle;
use super::document::Config;
use super::error::{IngestError, IngestProblem};
use super::limits::{IngestLimits, LimitKey};
use super::platform::Platform;
use crate::reference::{Digest, Reference};

/// An image to be added to the cache: everything except the content of its layers.
#[derive(Debug, Clone)]
pub(crate) struct SourceImage {
    pub(crate) names: Vec<SourceName>,
    pub(crate) manifest: Digest,
    pub(crate) manifest_media_type: String,
    pub(crate) manifest_json: String,
    pub(crate) config_digest: Digest,
    pub(crate) config_json: String,
    pub(crate) config: Config,
    /// The platform: of the descriptor, as far as it states one, and otherwise of the config.
    pub(crate) platform: Platform,
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

/// A name of an image in its source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SourceName {
    /// A name with a repository, as it is written there.
    Whole(String),
    /// A tag without a repository.
    Tag(String),
}

impl SourceName {
    pub(crate) fn as_str(&self) -> &str {
        let (Self::Whole(text) | Self::Tag(text)) = self;
        text
    }
}

/// An image and its names.
#[derive(Debug)]
pub(crate) struct NamedImage {
    pub(crate) image: SourceImage,
    pub(crate) references: Vec<Reference>,
}

/// The images of a bundle that a load takes.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) images: Vec<NamedImage>,
    /// The images that are left out.
    pub(crate) skipped: Vec<Skipped>,
}

/// Returns the images of a bundle for a platform, as they are wanted.
pub(crate) fn find_images(
    bundle: &Bundle,
    wanted: &Wanted,
    limits: &IngestLimits,
) -> Result<Found, IngestError> {
    let layout = bundle.find("index.json")?;
    let docker = bundle.find("manifest.json")?;
    let resolver = Resolver::new(bundle, &wanted.platform, limits);
    let docker = docker.map(|section| docker::entries(bundle, &resolver, &section)).transpose()?;
    let mut passed = PassedOver::default();
    let images = match (layout, docker) {
        (Some(index), docker) => {
            let mut images = layout::images(bundle, &resolver, &index, &mut passed)?;
            for image in &mut images {
                let same = docker.iter().flatten().filter(|entry| entry.is_of(image));
                let names: Vec<SourceName> = same.flat_map(docker::DockerEntry::names).collect();
                image.names.extend(names);
            }
            images
        }
        (None, Some(entries)) => docker::images(bundle, &resolver, &entries, &mut passed)?,
        (None, None) => return Err(IngestProblem::NotAnArchive.of(bundle.name())),
    };
    if images.is_empty() {
        return Err(resolver.nothing(passed, IngestProblem::NotAnArchive));
    }
    names::assign(merge_same(images), wanted).map_err(|problem| problem.of(bundle.name()))
}

/// Refuses archives with more images than the limits allow.
fn check_count(resolver: &Resolver<'_>, images: usize) -> Result<(), IngestError> {
    let checked = check_limit(images as u64, resolver.limits, LimitKey::Images);
    checked.map_err(|problem| resolver.fail(problem))
}

/// Merges images that are the same under several names.
fn merge_same(images: Vec<SourceImage>) -> Vec<SourceImage> {
    let mut merged: Vec<SourceImage> = Vec::new();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    for image in images {
        match places.get(&image.manifest).and_then(|&place| merged.get_mut(place)) {
            Some(other) => other.names.extend(image.names),
            None => {
                places.insert(image.manifest.clone(), merged.len());
                merged.push(image);
            }
        }
    }
    merged
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
