//! The files `manifests/<key>.json`: microsandbox's record of a reference (its `CachedImageMetadata`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::source::SourceImage;
use crate::reference::Digest;

#[derive(Serialize)]
struct Metadata<'a> {
    manifest_digest: &'a str,
    config_digest: &'a str,
    raw_manifest_json: &'a str,
    raw_config_json: &'a str,
    config: Config<'a>,
    layers: Vec<Layer<'a>>,
}

#[derive(Serialize)]
struct Config<'a> {
    env: &'a [String],
    cmd: Option<&'a [String]>,
    entrypoint: Option<&'a [String]>,
    working_dir: Option<&'a str>,
    user: Option<&'a str>,
    exposed_ports: Vec<&'a str>,
    volumes: Vec<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
    stop_signal: Option<&'a str>,
}

#[derive(Serialize)]
struct Layer<'a> {
    digest: &'a str,
    media_type: &'a str,
    size_bytes: u64,
    diff_id: &'a str,
}

/// Returns the file's content for an image, which is the same for all of its references.
pub(crate) fn encode(image: &SourceImage) -> String {
    let runtime = &image.config.config;
    let metadata = Metadata {
        manifest_digest: image.manifest.as_str(),
        config_digest: image.config_digest.as_str(),
        raw_manifest_json: &image.manifest_json,
        raw_config_json: &image.config_json,
        config: Config {
            env: &runtime.env,
            cmd: runtime.cmd.as_deref(),
            entrypoint: runtime.entrypoint.as_deref(),
            working_dir: runtime.working_dir.as_deref(),
            user: runtime.user.as_deref(),
            exposed_ports: runtime.exposed_ports.keys().map(String::as_str).collect(),
            volumes: runtime.volumes.keys().map(String::as_str).collect(),
            labels: &runtime.labels,
            stop_signal: runtime.stop_signal.as_deref(),
        },
        layers: image
            .layers
            .iter()
            .map(|layer| Layer {
                digest: layer.digest.as_str(),
                media_type: &layer.media_type,
                size_bytes: layer.size,
                diff_id: layer.diff_id.as_str(),
            })
            .collect(),
    };
    // Texts and numbers: nothing in it can fail to be written.
    serde_json::to_string(&metadata).unwrap_or_default()
}

/// The parsed record of an image. Its parts are only trusted if their digests match.
#[derive(Debug, Deserialize)]
pub(crate) struct KeptMetadata {
    manifest_digest: String,
    config_digest: String,
    raw_manifest_json: String,
    raw_config_json: String,
}

impl KeptMetadata {
    /// Parses the text of a file. Returns `None` if it is damaged.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Returns the record if it is about this manifest.
    pub(crate) fn about(self, manifest_digest: &str) -> Option<Self> {
        (self.manifest_digest == manifest_digest).then_some(self)
    }

    /// Returns the config as it was pulled or loaded, if it matches its digest.
    pub(crate) fn config(&self) -> Option<&str> {
        let text = &self.raw_config_json;
        (Digest::of(text.as_bytes()).as_str() == self.config_digest).then_some(text)
    }

    /// Returns the config of this digest.
    #[cfg(feature = "registry")]
    pub(crate) fn config_of(&self, digest: &Digest) -> Option<&str> {
        self.config().filter(|_| self.config_digest == digest.as_str())
    }

    /// Returns the manifest as it was pulled or loaded, with its digest, if it matches that.
    #[cfg(feature = "registry")]
    pub(crate) fn manifest(&self) -> Option<(Digest, &str)> {
        let digest = Digest::of(self.raw_manifest_json.as_bytes());
        (digest.as_str() == self.manifest_digest).then_some((digest, &self.raw_manifest_json))
    }

    /// Returns the annotations of the manifest.
    pub(crate) fn annotations(&self) -> Map<String, Value> {
        #[derive(Deserialize)]
        struct Manifest {
            #[serde(default)]
            annotations: Map<String, Value>,
        }
        let text = &self.raw_manifest_json;
        let intact = Digest::of(text.as_bytes()).as_str() == self.manifest_digest;
        let manifest = intact.then(|| serde_json::from_str::<Manifest>(text).ok()).flatten();
        manifest.map(|manifest| manifest.annotations).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A config that does not match its digest is refused, and so is the config of another manifest.
    #[test]
    fn metadata_is_checked() {
        let config = r#"{"rootfs":{"diff_ids":[]}}"#;
        let kept = |digest: &str| {
            let text = json!({
                "manifest_digest": "sha256:a", "config_digest": digest, "raw_manifest_json": "{}",
                "raw_config_json": config, "layers": [],
            });
            KeptMetadata::parse(text.to_string().as_bytes()).expect("metadata")
        };
        let digest = Digest::of(config.as_bytes());
        assert_eq!(kept(digest.as_str()).config(), Some(config));
        assert_eq!(kept(Digest::of(b"another").as_str()).config(), None);
        assert!(kept(digest.as_str()).about("sha256:b").is_none());
        assert!(kept(digest.as_str()).about("sha256:a").is_some());
        assert!(KeptMetadata::parse(br#"{"manifest_digest":"sha256:a"}"#).is_none());
    }
}
