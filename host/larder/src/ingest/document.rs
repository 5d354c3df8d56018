//! The documents of an image: index, manifest and config (OCI image specification; Docker's differ only in names).
//!
//! Unknown fields are ignored. `null` means an absent value: Docker writes it for empty lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::error::IngestProblem;
use super::platform::Platform;
use crate::reference::Digest;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The media types of layers, without the suffix for the compression.
const LAYERS: [&str; 4] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
const COMPRESSIONS: [&str; 5] = ["", "+gzip", "+zstd", ".gzip", ".zstd"];

/// Deserializes a value that may be `null`, which means an absent value.
fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A reference in a document to another document or a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn digest(&self, document: &str) -> Result<Digest, IngestProblem> {
        self.digest.parse().map_err(|error: crate::reference::DigestError| IngestProblem::Document {
            document: document.to_owned(),
            why: error.to_string(),
        })
    }

    /// Returns whether this belongs to another document, as an attestation does, and is not an image.
    pub(crate) fn is_attached(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// A platform in a document.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RawPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl RawPlatform {
    pub(crate) fn parse(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// A list of images, usually the same image for several platforms.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// A list of layers and a config.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// Refuses a manifest that is not an image: its config and layers have other media types.
    pub(crate) fn check_media_types(&self) -> Result<(), IngestProblem> {
        let config = self.config.media_type.as_deref().unwrap_or(OCI_CONFIG);
        if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config) {
            return Err(IngestProblem::MediaType(config.to_owned()));
        }
        for layer in &self.layers {
            let media_type = layer.media_type.as_deref().unwrap_or(OCI_LAYER);
            if !is_layer(media_type) {
                return Err(IngestProblem::MediaType(media_type.to_owned()));
            }
        }
        Ok(())
    }
}

fn is_layer(media_type: &str) -> bool {
    LAYERS
        .iter()
        .filter_map(|base| media_type.strip_prefix(base))
        .any(|compression| COMPRESSIONS.contains(&compression))
}

/// The kind of a document, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Index,
    Manifest,
}

impl DocumentKind {
    /// Determines the kind by the media type in the descriptor and in the document itself. Old OCI documents state no
    /// media type: an index has `manifests`.
    pub(crate) fn of(media_type: Option<&str>, text: &[u8]) -> Result<Self, IngestProblem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Option<Probe> = serde_json::from_slice(text).ok();
        let own = probe.as_ref().and_then(|probe| probe.media_type.as_deref());
        match media_type.or(own) {
            Some(OCI_INDEX | DOCKER_INDEX) => Ok(Self::Index),
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => Ok(Self::Manifest),
            Some(other) => Err(IngestProblem::MediaType(other.to_owned())),
            None if probe.as_ref().is_some_and(|probe| probe.manifests.is_some()) => Ok(Self::Index),
            None => Ok(Self::Manifest),
        }
    }
}

/// The config of an image.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    // Not flattened: that would keep everything of a document that is not known.
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) config: RuntimeConfig,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) rootfs: RootFs,
}

impl Config {
    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }

    pub(crate) fn diff_ids(&self, document: &str) -> Result<Vec<Digest>, IngestProblem> {
        let parse = |text: &String| {
            text.parse().map_err(|error: crate::reference::DigestError| IngestProblem::Document {
                document: document.to_owned(),
                why: error.to_string(),
            })
        };
        self.rootfs.diff_ids.iter().map(parse).collect()
    }
}

/// The layers in a config.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<String>,
}

/// The settings for starting a sandbox from an image. An empty text means an absent value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RuntimeConfig {
    #[serde(deserialize_with = "nullable")]
    pub(crate) env: Vec<String>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "text")]
    pub(crate) working_dir: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(crate) user: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "text")]
    pub(crate) stop_signal: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) volumes: BTreeMap<String, serde::de::IgnoredAny>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.filter(|text| !text.is_empty()))
}

/// Parses a document.
pub(crate) fn parse<'a, T: Deserialize<'a>>(name: &str, text: &'a [u8]) -> Result<T, IngestProblem> {
    serde_json::from_slice(text)
        .map_err(|error| IngestProblem::Document { document: name.to_owned(), why: error.to_string() })
}

/// Makes the manifest for an image of a `docker save` archive, which has none: compact JSON with sorted keys, as
/// microsandbox makes it from the same archive. So the same image has the same digest wherever it is loaded.
pub(crate) fn synthesise_manifest(
    config: &Digest,
    config_size: u64,
    layers: &[(String, Digest, u64)],
) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Part<'a> {
        digest: &'a str,
        media_type: &'a str,
        size: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Synthesised<'a> {
        config: Part<'a>,
        layers: Vec<Part<'a>>,
        media_type: &'a str,
        schema_version: u32,
    }
    let manifest = Synthesised {
        config: Part { digest: config.as_str(), media_type: OCI_CONFIG, size: config_size },
        layers: layers
            .iter()
            .map(|(media_type, digest, size)| Part { digest: digest.as_str(), media_type, size: *size })
            .collect(),
        media_type: OCI_MANIFEST,
        schema_version: 2,
    };
    // Nothing in it can fail to be written.
    serde_json::to_string(&manifest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `null` of Docker is an empty list, and an empty text of Docker is an absent value.
    #[test]
    fn configs_of_docker() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"User":"","Labels":null,
            "ExposedPorts":{"80/tcp":{}},"Volumes":null,"StopSignal":"SIGINT"},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config: Config = parse("config", text).expect("a config");
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert_eq!((config.config.user, config.config.stop_signal.as_deref()), (None, Some("SIGINT")));
        assert_eq!(config.config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp"]);
        let config: Config = parse("config", br#"{"config":null}"#).expect("a config");
        assert!(config.config.env.is_empty() && config.rootfs.diff_ids.is_empty());
    }

    /// Layers of Docker and OCI are recognized in each compression, and other media types are not.
    #[test]
    fn media_types() {
        for known in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
        ] {
            assert!(is_layer(known), "{known}");
        }
        for unknown in ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain", ""] {
            assert!(!is_layer(unknown), "{unknown}");
        }
    }

    /// The manifest of an image that has none depends only on config and layers.
    #[test]
    fn synthesised() {
        let digest = Digest::of(b"x");
        let text = synthesise_manifest(&digest, 1, &[(OCI_LAYER.to_owned(), digest.clone(), 2)]);
        let manifest: Manifest = parse("m", text.as_bytes()).expect("a manifest");
        assert!(manifest.check_media_types().is_ok());
        assert_eq!(
            text,
            format!(
                r#"{{"config":{{"digest":"{digest}","mediaType":"{OCI_CONFIG}","size":1}},"layers":[{{"digest":"{digest}","mediaType":"{OCI_LAYER}","size":2}}],"mediaType":"{OCI_MANIFEST}","schemaVersion":2}}"#
            )
        );
    }
}
