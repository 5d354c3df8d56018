//! `manifests/<key>.json`: what microsandbox remembers of a reference (its `CachedImageMetadata`).

use serde::Serialize;

use super::source::SourceImage;

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

/// The file's content for an image, which is the same for all of its references.
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
