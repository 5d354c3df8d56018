//! The SDK's records as JSON, in the form that Larder's have: keys are the names of the fields, times RFC 3339.

use microsandbox::{ImageDetail, ImageHandle, ImagePruneReport};
use serde_json::{Value, json};

pub(crate) fn handle(image: &ImageHandle) -> Value {
    json!({
        "architecture": image.architecture(),
        "created_at": image.created_at().map(|time| time.to_rfc3339()),
        "last_used_at": image.last_used_at().map(|time| time.to_rfc3339()),
        "layer_count": image.layer_count(),
        "manifest_digest": image.manifest_digest(),
        "os": image.os(),
        "reference": image.reference(),
        "size_bytes": image.size_bytes(),
    })
}

pub(crate) fn detail(image: &ImageDetail) -> Value {
    let config = image.config.as_ref().map(|config| {
        json!({
            "cmd": config.cmd,
            "digest": config.digest,
            "entrypoint": config.entrypoint,
            "env": config.env,
            "labels": config.labels,
            "stop_signal": config.stop_signal,
            "user": config.user,
            "working_dir": config.working_dir,
        })
    });
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "blob_digest": layer.blob_digest,
                "compressed_size_bytes": layer.compressed_size_bytes,
                "diff_id": layer.diff_id,
                "erofs_size_bytes": layer.erofs_size_bytes,
                "media_type": layer.media_type,
                "position": layer.position,
            })
        })
        .collect();
    json!({ "config": config, "handle": handle(&image.handle), "layers": layers })
}

pub(crate) fn prune_report(report: &ImagePruneReport) -> Value {
    json!({
        "image_refs_removed": report.image_refs_removed,
        "manifests_removed": report.manifests_removed,
        "layers_removed": report.layers_removed,
        "fsmeta_removed": report.fsmeta_removed,
        "vmdk_removed": report.vmdk_removed,
        "bytes_reclaimed": report.bytes_reclaimed,
        "skipped_in_use": report.skipped_in_use,
    })
}
