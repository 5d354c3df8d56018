//! Records of this crate as records of the contract, and back.

use chrono::{DateTime, Utc};

use super::bindings::{images, report, types, usage};
use super::select::Order;
use crate::plan::{LogLevel, Right};
use crate::records::{ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail};
use crate::snapshot::{ImageUsers, Origin};

/// What a record takes in a guest's memory besides its texts, roughly: more than any record of the contract has.
pub(super) const RECORD_BYTES: usize = 160;

pub(super) fn datetime(time: DateTime<Utc>) -> types::Datetime {
    // chrono shows a leap second as more than a second's worth of nanoseconds, which the contract does not know.
    let nanoseconds = time.timestamp_subsec_nanos().min(999_999_999);
    types::Datetime { seconds: time.timestamp(), nanoseconds }
}

/// The instant, where it is one that this host can hold.
pub(super) fn instant(time: types::Datetime) -> Option<DateTime<Utc>> {
    let in_range = time.nanoseconds < 1_000_000_000;
    in_range.then(|| DateTime::from_timestamp(time.seconds, time.nanoseconds)).flatten()
}

pub(super) fn handle(handle: &ImageHandle) -> types::ImageHandle {
    types::ImageHandle {
        reference: handle.reference.clone(),
        size_bytes: handle.size_bytes,
        manifest_digest: handle.manifest_digest.clone(),
        architecture: handle.architecture.clone(),
        os: handle.os.clone(),
        layer_count: u32::try_from(handle.layer_count).unwrap_or(u32::MAX),
        last_used_at: handle.last_used_at.map(datetime),
        created_at: handle.created_at.map(datetime),
    }
}

/// Bytes that a handle carries into a guest.
pub(super) fn handle_bytes(handle: &ImageHandle) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    RECORD_BYTES
        + handle.reference.len()
        + text(&handle.manifest_digest)
        + text(&handle.architecture)
        + text(&handle.os)
}

/// The detail, without environment and labels unless `secrets`.
pub(super) fn detail(detail: ImageDetail, secrets: bool) -> types::ImageDetail {
    types::ImageDetail {
        handle: handle(&detail.handle),
        config: detail.config.map(|detail| config(detail, secrets)),
        layers: detail.layers.into_iter().map(layer).collect(),
    }
}

/// What crosses into a guest with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cargo {
    /// Bytes of its longest text.
    pub(super) longest_text: usize,
    /// Elements of its longest list.
    pub(super) longest_list: usize,
    /// Bytes in all, roughly.
    pub(super) bytes: usize,
}

impl Cargo {
    fn text(&mut self, text: &str) {
        self.longest_text = self.longest_text.max(text.len());
        self.bytes += text.len();
    }

    fn list<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.longest_list = self.longest_list.max(texts.len());
        self.bytes += texts.len() * 8;
        texts.for_each(|text| self.text(text));
    }
}

/// What a detail carries into a guest. What comes from the image's own config may have any size.
pub(super) fn detail_cargo(detail: &types::ImageDetail) -> Cargo {
    let mut cargo = Cargo { longest_list: detail.layers.len(), ..Cargo::default() };
    // Digests and media types are short; a record's worth covers them.
    cargo.bytes = (1 + detail.layers.len()) * 2 * RECORD_BYTES;
    cargo.text(&detail.handle.reference);
    if let Some(config) = &detail.config {
        let lists = [Some(&config.env), config.cmd.as_ref(), config.entrypoint.as_ref()];
        lists.into_iter().flatten().for_each(|list| cargo.list(list.iter().map(String::as_str)));
        cargo.list(config.labels.iter().map(|(key, _)| key.as_str()));
        cargo.list(config.labels.iter().map(|(_, value)| value.as_str()));
        let texts = [&config.working_dir, &config.user, &config.stop_signal];
        texts.into_iter().flatten().for_each(|text| cargo.text(text));
    }
    cargo
}

fn config(config: ImageConfigDetail, secrets: bool) -> types::ImageConfigDetail {
    let labels = match config.labels {
        Some(serde_json::Value::Object(labels)) if secrets => labels
            .into_iter()
            .map(|(key, value)| match value {
                serde_json::Value::String(text) => (key, text),
                other => (key, other.to_string()),
            })
            .collect(),
        _ => Vec::new(),
    };
    types::ImageConfigDetail {
        digest: config.digest,
        env: if secrets { config.env } else { Vec::new() },
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        working_dir: config.working_dir,
        user: config.user,
        labels,
        stop_signal: config.stop_signal,
    }
}

fn layer(layer: ImageLayerDetail) -> types::ImageLayerDetail {
    types::ImageLayerDetail {
        diff_id: layer.diff_id,
        blob_digest: layer.blob_digest,
        media_type: layer.media_type,
        compressed_size_bytes: layer.compressed_size_bytes,
        erofs_size_bytes: layer.erofs_size_bytes,
        position: layer.position,
    }
}

pub(super) fn users(reference: &str, users: &ImageUsers) -> types::ImageUsers {
    types::ImageUsers {
        reference: reference.to_owned(),
        sandboxes: users.sandboxes.clone(),
        snapshots: users.snapshots.clone(),
    }
}

pub(super) fn origin(origin: Origin) -> usage::Origin {
    match origin {
        Origin::Registry => usage::Origin::Registry,
        Origin::Archive => usage::Origin::Archive,
        Origin::Unknown => usage::Origin::Unknown,
    }
}

pub(super) fn right(right: Right) -> types::Right {
    match right {
        Right::Read => types::Right::Read,
        Right::Inspect => types::Right::Inspect,
        Right::Remove => types::Right::Remove,
        Right::Force => types::Right::Force,
        Right::Prune => types::Right::Prune,
        Right::Budget => types::Right::Budget,
        Right::Protected => types::Right::Protected,
    }
}

pub(super) fn order(order: images::Order) -> Order {
    match order {
        images::Order::CreatedNewestFirst => Order::CreatedNewest,
        images::Order::CreatedOldestFirst => Order::CreatedOldest,
        images::Order::UsedNewestFirst => Order::UsedNewest,
        images::Order::UsedOldestFirst => Order::UsedOldest,
        images::Order::LargestFirst => Order::Largest,
        images::Order::SmallestFirst => Order::Smallest,
    }
}

pub(super) fn level(level: report::Level) -> LogLevel {
    match level {
        report::Level::Debug => LogLevel::Debug,
        report::Level::Info => LogLevel::Info,
        report::Level::Warn => LogLevel::Warn,
        report::Level::Error => LogLevel::Error,
    }
}
