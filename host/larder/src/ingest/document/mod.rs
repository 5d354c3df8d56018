//! The documents of an image: index, manifest and config (OCI image specification; Docker's differ only in names).
//!
//! Unknown fields are ignored. `null` means an absent value: Docker writes it for empty lists.

mod loose;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::IngestProblem;
use super::platform::Platform;
use crate::reference::Digest;
use loose::{annotations, command, map, nullable, text, texts};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Returns the name of a blob in an OCI image layout (image layout specification, "Blobs").
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The media types that old registries and builders gave to configs. Docker takes them for configs, too.
const LEGACY_CONFIGS: [&str; 3] = ["application/octet-stream", "application/json", "text/html"];

/// The media types of layers, without the suffix for the compression.
const LAYERS: [&str; 4] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
const COMPRESSIONS: [&str; 5] = ["", "+gzip", "+zstd", ".gzip", ".zstd"];

/// A reference in a document to another document or a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "text")]
    pub(crate) media_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    artifact_type: Option<String>,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "annotations")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn digest(&self, document: &str) -> Result<Digest, IngestProblem> {
        self.digest.parse().map_err(|error: crate::reference::DigestError| IngestProblem::Document {
            document: document.to_owned(),
            why: error.to_string(),
        })
    }

    /// Returns the reason why this member of an index is no image that can run here, whatever its platform. An index may have
    /// members of any kind (image index specification, `manifests`): attestations, signatures, images in other formats.
    pub(crate) fn foreign_kind(&self) -> Option<String> {
        if self.annotations.contains_key("vnd.docker.reference.type") {
            return Some("an attestation".to_owned());
        }
        let image = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
        let media_type = self.media_type.as_deref().filter(|media_type| !image.contains(media_type));
        let artifact =
            self.artifact_type.as_deref().filter(|artifact| ![OCI_CONFIG, DOCKER_CONFIG].contains(artifact));
        if let Some(media_type) = media_type.or(artifact) {
            return Some(format!("`{media_type}`"));
        }
        // Each is a feature that the host must have (image index specification, `os.features`), and none is known here.
        let feature = self.platform.as_ref().and_then(|platform| platform.os_features.first());
        feature.map(|feature| format!("an image for hosts with `{feature}`"))
    }

    /// Returns the platform that it states. Its parts may be unknown.
    pub(crate) fn platform(&self) -> Platform {
        self.platform.as_ref().map_or_else(|| Platform::new("", "", None), RawPlatform::parse)
    }
}

/// A platform in a document.
#[derive(Debug, Clone, Deserialize)]
struct RawPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, rename = "os.features", deserialize_with = "texts")]
    os_features: Vec<String>,
}

impl RawPlatform {
    fn parse(&self) -> Platform {
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
    #[serde(default, deserialize_with = "text")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// Refuses a manifest that is not an image: its config and layers have other media types.
    pub(crate) fn check_media_types(&self) -> Result<(), IngestProblem> {
        let config = self.config.media_type.as_deref().unwrap_or(OCI_CONFIG);
        if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config) && !LEGACY_CONFIGS.contains(&config) {
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
    ///
    /// A document that can be read as either kind is refused: different programs would run different images of it
    /// (CVE-2021-41190).
    pub(crate) fn of(name: &str, media_type: Option<&str>, text: &[u8]) -> Result<Self, IngestProblem> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Probe {
            #[serde(deserialize_with = "loose::text")]
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let fail = |why: String| IngestProblem::Document { document: name.to_owned(), why };
        let probe: Probe = serde_json::from_slice(text).unwrap_or_default();
        let kind = |media_type: &str| match media_type {
            OCI_INDEX | DOCKER_INDEX => Ok(Self::Index),
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(Self::Manifest),
            other => Err(IngestProblem::MediaType(other.to_owned())),
        };
        if probe.fs_layers.is_some() {
            return Err(fail(
                "it is of schema version 1, which registries have given up: push the image again".to_owned(),
            ));
        }
        let has_manifests = probe.manifests.is_some();
        if has_manifests && (probe.layers.is_some() || probe.config.is_some()) {
            return Err(fail("it is an index and a manifest at once".to_owned()));
        }
        let told = media_type.map(kind).transpose()?;
        let own = probe.media_type.as_deref().map(kind).transpose()?;
        let seen = if has_manifests { Self::Index } else { Self::Manifest };
        match told.or(own) {
            Some(_) if told.is_some() && own.is_some() && told != own => {
                Err(fail("it states another media type than its descriptor".to_owned()))
            }
            kind => Ok(kind.unwrap_or(seen)),
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
    #[serde(deserialize_with = "texts")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "command")]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(deserialize_with = "command")]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "text")]
    pub(crate) working_dir: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(crate) user: Option<String>,
    #[serde(deserialize_with = "map")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "text")]
    pub(crate) stop_signal: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) volumes: BTreeMap<String, serde::de::IgnoredAny>,
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

    /// What Go's decoder takes is taken: a single word as a command, `null` in lists and maps, annotations of other types.
    #[test]
    fn loose_documents() {
        let text = br#"{"config":{"Env":["A=1",null],"Cmd":"sh","Entrypoint":["a",null],"Labels":{"a":null,"b":"c"}}}"#;
        let config: Config = parse("config", text).expect("a config");
        let runtime = config.config;
        assert_eq!(
            (runtime.env, runtime.cmd),
            (vec!["A=1".to_owned(), String::new()], Some(vec!["sh".to_owned()]))
        );
        assert_eq!(runtime.entrypoint, Some(vec!["a".to_owned(), String::new()]));
        assert_eq!(runtime.labels["a"], "");
        let text = br#"{"digest":"sha256:0","size":1,"mediaType":"","annotations":{"a":1,"b":"c","d":null}}"#;
        let descriptor: Descriptor = parse("index", text).expect("a descriptor");
        assert_eq!((descriptor.media_type, descriptor.annotations.len()), (None, 1));
    }

    /// A document is one thing: what is index and manifest at once is refused, and what its descriptor calls otherwise.
    #[test]
    fn one_kind() {
        let kind = |media_type, text: &str| {
            DocumentKind::of("a", media_type, text.as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(kind(None, r#"{"manifests":[]}"#), Ok(DocumentKind::Index));
        assert_eq!(kind(None, r#"{"layers":[],"config":{}}"#), Ok(DocumentKind::Manifest));
        assert_eq!(kind(Some(OCI_INDEX), r#"{"manifests":[],"layers":null}"#), Ok(DocumentKind::Index));
        for both in [r#"{"manifests":[],"layers":[]}"#, r#"{"manifests":[],"config":{}}"#] {
            for told in [None, Some(OCI_INDEX), Some(OCI_MANIFEST)] {
                assert!(kind(told, both).unwrap_err().ends_with("it is an index and a manifest at once"));
            }
        }
        let other = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(
            kind(Some(OCI_MANIFEST), &other).unwrap_err().ends_with("another media type than its descriptor")
        );
        assert!(kind(None, r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err().contains("schema version 1"));
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
