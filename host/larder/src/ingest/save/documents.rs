//! The documents of an archive beside its layers: configs, manifests and lists of images.
//!
//! | | Docker archive | OCI archive |
//! | --- | --- | --- |
//! | layers | `HEX.tar`, or `HEX.tar.gz` | `blobs/sha256/HEX` |
//! | config | `HEX.json` | `blobs/sha256/HEX` |
//! | images | `manifest.json` with `RepoTags` | `index.json`, `oci-layout`, and a manifest each; and `manifest.json` |
//!
//! The second is an image layout (OCI image specification, image layout) as a tar file. Its index lists an image with
//! several tags once for each tag, with its platform. `docker load` reads `manifest.json`, which lists the same images;
//! with the containerd image store it reads `index.json`.

use std::io;

use serde_json::{Map, Value, json};

use super::archive::Archive;
use super::compression::LayerCompression;
use super::{SavedLayer, SavedManifest};
use crate::ingest::Platform;
use crate::ingest::document::{Config, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, blob_name};
use crate::records::ImageArchiveFormat;
use crate::reference::Digest;

/// The annotations for the name of an image in a layout (OCI image specification, annotations; containerd and Docker).
/// Both have the whole name, as podman writes it: a tag alone would be the same for several images.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// The documents of an archive.
#[derive(Debug)]
pub(super) struct Documents {
    format: ImageArchiveFormat,
    compression: LayerCompression,
    /// The entries of `manifest.json`.
    docker: Vec<Value>,
    /// The descriptors in `index.json`.
    manifests: Vec<Value>,
}

/// An image whose layers are in the archive.
#[derive(Debug)]
pub(super) struct NewImage<'a> {
    pub(super) config: &'a str,
    pub(super) layers: &'a [SavedLayer],
    pub(super) annotations: Map<String, Value>,
    pub(super) tags: &'a [String],
}

impl Documents {
    /// Makes the documents of an archive without images.
    pub(super) fn new(format: ImageArchiveFormat, compression: LayerCompression) -> Self {
        Self { format, compression, docker: Vec::new(), manifests: Vec::new() }
    }

    /// Returns the name of a layer in the archive.
    pub(super) fn layer_name(&self, digest: &Digest) -> String {
        match (self.format, self.compression) {
            (ImageArchiveFormat::Oci, _) => blob_name(digest),
            (ImageArchiveFormat::Docker, LayerCompression::None) => format!("{}.tar", digest.hex()),
            (ImageArchiveFormat::Docker, LayerCompression::Gzip(_)) => format!("{}.tar.gz", digest.hex()),
            (ImageArchiveFormat::Docker, LayerCompression::Zstd(_)) => format!("{}.tar.zst", digest.hex()),
        }
    }

    fn config_name(&self, digest: &Digest) -> String {
        match self.format {
            ImageArchiveFormat::Docker => format!("{}.json", digest.hex()),
            ImageArchiveFormat::Oci => blob_name(digest),
        }
    }

    /// Adds the members before the first layer.
    pub(super) fn begin(&self, archive: &mut Archive) -> io::Result<()> {
        match self.format {
            ImageArchiveFormat::Docker => Ok(()),
            ImageArchiveFormat::Oci => {
                let layout = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
                archive.add_bytes("oci-layout", layout.as_bytes())?;
                archive.add_directory("blobs/")?;
                archive.add_directory("blobs/sha256/")
            }
        }
    }

    /// Adds an image. Returns the digests of its config and, if it has one, its manifest.
    pub(super) fn add_image(
        &mut self,
        archive: &mut Archive,
        image: NewImage<'_>,
    ) -> io::Result<(Digest, Option<SavedManifest>)> {
        let NewImage { config, layers, annotations, tags } = image;
        let config_digest = Digest::of(config.as_bytes());
        let config_name = self.config_name(&config_digest);
        archive.add_bytes(&config_name, config.as_bytes())?;
        let names = layers.iter().map(|layer| self.layer_name(&layer.blob_digest)).collect::<Vec<_>>();
        self.docker.push(json!({ "Config": config_name, "RepoTags": tags, "Layers": names }));
        if self.format == ImageArchiveFormat::Docker {
            return Ok((config_digest, None));
        }
        let media_type = match self.compression {
            LayerCompression::None => OCI_LAYER.to_owned(),
            LayerCompression::Gzip(_) => format!("{OCI_LAYER}+gzip"),
            LayerCompression::Zstd(_) => format!("{OCI_LAYER}+zstd"),
        };
        let layers = layers.iter().map(|layer| descriptor(&media_type, &layer.blob_digest, layer.size_bytes));
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config_digest, config.len() as u64),
            "layers": layers.collect::<Vec<_>>(),
        });
        let annotations = texts(annotations);
        if !annotations.is_empty() {
            manifest["annotations"] = annotations.into();
        }
        let text = manifest.to_string();
        let manifest = SavedManifest { digest: Digest::of(text.as_bytes()), size_bytes: text.len() as u64 };
        archive.add_bytes(&blob_name(&manifest.digest), text.as_bytes())?;
        self.manifests.extend(descriptors(&manifest, config, tags));
        Ok((config_digest, Some(manifest)))
    }

    /// Adds the lists of images.
    pub(super) fn finish(self, archive: &mut Archive) -> io::Result<()> {
        if self.format == ImageArchiveFormat::Oci {
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.manifests });
            archive.add_bytes("index.json", index.to_string().as_bytes())?;
        }
        archive.add_bytes("manifest.json", Value::from(self.docker).to_string().as_bytes())
    }
}

/// Returns those values that are texts, and empty texts for `null`, as readers in Go take it. They read nothing of a
/// document with another value.
pub(super) fn texts(values: Map<String, Value>) -> Map<String, Value> {
    let text = |(key, value)| match value {
        Value::String(_) => Some((key, value)),
        Value::Null => Some((key, Value::from(""))),
        _ => None,
    };
    values.into_iter().filter_map(text).collect()
}

/// Returns one descriptor for each tag, or one without a name.
fn descriptors(manifest: &SavedManifest, config: &str, tags: &[String]) -> Vec<Value> {
    let mut plain = descriptor(OCI_MANIFEST, &manifest.digest, manifest.size_bytes);
    if let Some(platform) = platform(config) {
        plain["platform"] = platform;
    }
    if tags.is_empty() {
        return vec![plain];
    }
    let named = |tag: &String| {
        let mut named = plain.clone();
        named["annotations"] = NAMES.iter().map(|name| ((*name).to_owned(), json!(tag))).collect();
        named
    };
    tags.iter().map(named).collect()
}

/// Returns the platform that a config states, if it states one.
fn platform(config: &str) -> Option<Value> {
    let platform: Platform = serde_json::from_str::<Config>(config).ok()?.platform();
    if platform.os().is_empty() || platform.architecture().is_empty() {
        return None;
    }
    let mut value = json!({ "architecture": platform.architecture(), "os": platform.os() });
    if let Some(variant) = platform.variant() {
        value["variant"] = variant.into();
    }
    Some(value)
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": size })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Annotations and labels are texts for whoever reads them.
    #[test]
    fn values_are_texts() {
        let Value::Object(values) = json!({ "a": "b", "number": 1, "null": null, "list": ["a"] }) else {
            panic!("an object")
        };
        assert_eq!(Value::from(texts(values)), json!({ "a": "b", "null": "" }));
    }
}
