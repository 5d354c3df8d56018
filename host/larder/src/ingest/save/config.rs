//! The config of a saved image.
//!
//! The text that was pulled or loaded is kept unchanged, with unknown fields, order and history. Only `rootfs.diff_ids`
//! is replaced if a layer's diff ID has changed, and nothing around it. If the text is lost, a new config is made of
//! the fields that the index has.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::documents::texts;
use crate::ingest::Platform;
use crate::ingest::metadata::KeptMetadata;
use crate::records::{ImageConfigDetail, ImageDetail};
use crate::reference::Digest;

/// The origin of a saved image's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConfigOrigin {
    /// The config that was pulled or loaded, byte for byte.
    Verbatim,
    /// That config with other diff IDs: another program had written the layers' archives.
    DiffIdsReplaced,
    /// A config made of the fields in the index: the original text is missing or damaged.
    Rebuilt,
}

/// Returns the config of an image with these diff IDs.
pub(super) fn config(
    detail: &ImageDetail,
    metadata: Option<&KeptMetadata>,
    diff_ids: &[Digest],
) -> (String, ConfigOrigin) {
    let original = metadata.and_then(KeptMetadata::config);
    match original.and_then(|text| with_diff_ids(text, diff_ids).map(|replaced| (text, replaced))) {
        Some((text, replaced)) if text == replaced => (replaced, ConfigOrigin::Verbatim),
        Some((_, replaced)) => (replaced, ConfigOrigin::DiffIdsReplaced),
        None => (rebuilt(detail, diff_ids), ConfigOrigin::Rebuilt),
    }
}

/// Returns the same text with these diff IDs, or `None` if it is not a config with the same number of layers.
fn with_diff_ids(text: &str, diff_ids: &[Digest]) -> Option<String> {
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        rootfs: RootFs<'a>,
    }
    #[derive(Deserialize)]
    struct RootFs<'a> {
        #[serde(borrow)]
        diff_ids: &'a RawValue,
    }
    let old = serde_json::from_str::<Config<'_>>(text).ok()?.rootfs.diff_ids.get();
    let old_ids: Vec<String> = serde_json::from_str(old).ok()?;
    if old_ids.len() != diff_ids.len() {
        return None;
    }
    if old_ids.iter().zip(diff_ids).all(|(old, new)| old == new.as_str()) {
        return Some(text.to_owned());
    }
    // A raw value is a part of the text that it was parsed from.
    let start = old.as_ptr() as usize - text.as_ptr() as usize;
    let new = serde_json::to_string(&diff_ids.iter().map(Digest::as_str).collect::<Vec<_>>()).ok()?;
    Some([&text[..start], &new, &text[start + old.len()..]].concat())
}

/// Makes a config from the fields in the index. Without a platform there, it is for this machine, as any image that is
/// loaded or pulled.
fn rebuilt(detail: &ImageDetail, diff_ids: &[Digest]) -> String {
    let mut fields = Map::new();
    if let Some(config) = &detail.config {
        let ImageConfigDetail { digest: _, env, cmd, entrypoint, working_dir, user, labels, stop_signal } =
            config;
        let known = [
            ("Env", Some(json!(env))),
            ("Cmd", cmd.as_ref().map(|cmd| json!(cmd))),
            ("Entrypoint", entrypoint.as_ref().map(|entrypoint| json!(entrypoint))),
            ("WorkingDir", working_dir.as_ref().map(|directory| json!(directory))),
            ("User", user.as_ref().map(|user| json!(user))),
            ("Labels", labels.as_ref().and_then(Value::as_object).map(|labels| texts(labels.clone()).into())),
            ("StopSignal", stop_signal.as_ref().map(|signal| json!(signal))),
        ];
        fields.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
    let machine = Platform::of_this_machine();
    json!({
        "architecture": detail.handle.architecture().unwrap_or(machine.architecture()),
        "config": fields,
        "os": detail.handle.os().unwrap_or(machine.os()),
        "rootfs": {
            "diff_ids": diff_ids.iter().map(Digest::as_str).collect::<Vec<_>>(),
            "type": "layers",
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the diff IDs of a config change: its order, numbers, spaces and unknown fields stay.
    #[test]
    fn configs_are_kept() {
        let old = Digest::of(b"old");
        let new = Digest::of(b"new");
        let text = |ids: &str| {
            format!(
                r#"{{ "z":1e400, "history":[{{"created":"x","empty_layer":true}}], "rootfs" : {{"type":"layers", "diff_ids": {ids} }},"a":[1.00, "\u0041"], "os":"linux"}}"#
            )
        };
        let before = text(&format!(r#"[ "{old}" ]"#));
        assert_eq!(with_diff_ids(&before, std::slice::from_ref(&old)), Some(before.clone()));
        assert_eq!(with_diff_ids(&before, std::slice::from_ref(&new)), Some(text(&format!(r#"["{new}"]"#))));
        for bad in ["", "{}", r#"{"rootfs":{}}"#, r#"{"rootfs":{"diff_ids":[]}}"#, &text("[1]"), "[]"] {
            assert_eq!(with_diff_ids(bad, std::slice::from_ref(&new)), None, "{bad}");
        }
    }
}
