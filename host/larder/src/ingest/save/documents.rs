//! The documents of an archive beside its layers: configs, manifests and lists of images.
//!
//! | | Docker archive | OCI archive |
//! | --- | --- | --- |
//! | layers | `HEX.tar`, plain | `blobs/sha256/HEX`, gzip |
//! | config | `HEX.json` | `blobs/sha256/HEX` |
//! | images | `manifest.json` with `RepoTags` | `index.json`, `oci-layout`, and a manifest each |
//!
//! `docker load` reads the first. The second is an image layout (OCI image specification, image layout) as a tar
//! file. Its index lists an image with several tags once for each tag.

use std::io;

use serde_json::{Map, Value, json};

use super::archive::Archive;
use super::{SavedImage, SavedLayer, SavedManifest};
use crate::records::ImageArchiveFormat;
use crate::reference::Digest;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The annotations for the name of an image in a layout (OCI image specification, annotations; containerd and Docker).
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Returns the name of a layer in an archive.
pub(super) fn layer_name(format: ImageArchiveFormat, digest: &Digest) -> String {
    match format {
        ImageArchiveFormat::Docker => format!("{}.tar", digest.hex()),
        ImageArchiveFormat::Oci => blob_name(digest),
    }
}

fn config_name(format: ImageArchiveFormat, digest: &Digest) -> String {
    match format {
        ImageArchiveFormat::Docker => format!("{}.json", digest.hex()),
        ImageArchiveFormat::Oci => blob_name(digest),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Adds the members before the first layer.
pub(super) fn begin(archive: &mut Archive, format: ImageArchiveFormat) -> io::Result<()> {
    match format {
        ImageArchiveFormat::Docker => Ok(()),
        ImageArchiveFormat::Oci => {
            archive
                .add_bytes("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
            archive.add_directory("blobs/")?;
            archive.add_directory("blobs/sha256/")
        }
    }
}

/// Adds an image whose layers are in the archive. Returns the digests of its config and, if it has one, its manifest.
pub(super) fn add_image(
    archive: &mut Archive,
    format: ImageArchiveFormat,
    config: &str,
    layers: &[SavedLayer],
    annotations: Map<String, Value>,
) -> io::Result<(Digest, Option<SavedManifest>)> {
    let config_digest = Digest::of(config.as_bytes());
    archive.add_bytes(&config_name(format, &config_digest), config.as_bytes())?;
    if format == ImageArchiveFormat::Docker {
        return Ok((config_digest, None));
    }
    let layers = layers.iter().map(|layer| descriptor(LAYER_TYPE, &layer.blob_digest, layer.size_bytes));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, &config_digest, config.len() as u64),
        "layers": layers.collect::<Vec<_>>(),
    });
    if !annotations.is_empty() {
        manifest["annotations"] = annotations.into();
    }
    let text = manifest.to_string();
    let digest = Digest::of(text.as_bytes());
    archive.add_bytes(&blob_name(&digest), text.as_bytes())?;
    Ok((config_digest, Some(SavedManifest { digest, size_bytes: text.len() as u64 })))
}

/// Adds the list of images.
pub(super) fn finish(
    archive: &mut Archive,
    format: ImageArchiveFormat,
    images: &[SavedImage],
) -> io::Result<()> {
    let (name, document) = match format {
        ImageArchiveFormat::Docker => ("manifest.json", Value::from_iter(images.iter().map(docker_image))),
        ImageArchiveFormat::Oci => {
            let manifests: Vec<Value> = images.iter().flat_map(oci_descriptors).collect();
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests });
            ("index.json", index)
        }
    };
    archive.add_bytes(name, document.to_string().as_bytes())
}

fn docker_image(image: &SavedImage) -> Value {
    let format = ImageArchiveFormat::Docker;
    let layers = image.layers.iter().map(|layer| layer_name(format, &layer.blob_digest));
    json!({
        "Config": config_name(format, &image.config_digest),
        "RepoTags": image.tags,
        "Layers": layers.collect::<Vec<_>>(),
    })
}

/// Returns one descriptor for each tag, or one without a name.
fn oci_descriptors(image: &SavedImage) -> Vec<Value> {
    let Some(manifest) = &image.manifest else { return Vec::new() };
    let plain = descriptor(MANIFEST_TYPE, &manifest.digest, manifest.size_bytes);
    if image.tags.is_empty() {
        return vec![plain];
    }
    let named = |tag: &String| {
        let mut named = plain.clone();
        named["annotations"] = NAMES.iter().map(|name| ((*name).to_owned(), json!(tag))).collect();
        named
    };
    image.tags.iter().map(named).collect()
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": size })
}
