//! Records of the session as records of the contract, and back.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Handles, images, report, types, usage};
use crate::plan::{LogLevel, Right};
use crate::policy::session::Session;
use crate::policy::session::access::Remaining;
use crate::policy::session::answers::{Cost, GuestError, Inspected, Usage, label};
use crate::policy::session::select::{Filter, Order};
use crate::policy::session::staging::Pruned;
use crate::records::{ImageConfigDetail, ImageLayerDetail};
use crate::snapshot::{DiskStatus, ImageHistory, Origin};

pub(crate) fn datetime(time: DateTime<Utc>) -> types::Datetime {
    // chrono shows a leap second as more than a second's worth of nanoseconds, which the contract does not know.
    let nanoseconds = time.timestamp_subsec_nanos().min(999_999_999);
    types::Datetime { seconds: time.timestamp(), nanoseconds }
}

/// Returns the instant, if it is one that this host can hold.
fn instant(time: types::Datetime) -> Option<DateTime<Utc>> {
    let in_range = time.nanoseconds < 1_000_000_000;
    in_range.then(|| DateTime::from_timestamp(time.seconds, time.nanoseconds)).flatten()
}

pub(super) fn filter(filter: images::ImageFilter) -> Result<Filter, GuestError> {
    let instant = |time: Option<types::Datetime>| match time.map(instant) {
        Some(None) => Err(GuestError::Other("the filter has an instant that is not one")),
        time => Ok(time.flatten()),
    };
    Ok(Filter {
        reference: filter.reference,
        unused_since: instant(filter.unused_since)?,
        arrived_before: instant(filter.arrived_before)?,
        min_size_bytes: filter.min_size_bytes,
        unused: filter.unused,
        order: order(filter.order),
        after: filter.after,
        limit: filter.limit,
    })
}

fn order(order: images::Order) -> Order {
    match order {
        images::Order::CreatedNewestFirst => Order::CreatedNewest,
        images::Order::CreatedOldestFirst => Order::CreatedOldest,
        images::Order::ArrivedNewestFirst => Order::ArrivedNewest,
        images::Order::ArrivedOldestFirst => Order::ArrivedOldest,
        images::Order::UsedNewestFirst => Order::UsedNewest,
        images::Order::UsedOldestFirst => Order::UsedOldest,
        images::Order::LargestFirst => Order::Largest,
        images::Order::SmallestFirst => Order::Smallest,
    }
}

pub(super) fn detail(inspected: Inspected, handles: &Handles) -> types::ImageDetail {
    let Inspected { image, detail, shows_env } = inspected;
    types::ImageDetail {
        handle: Arc::clone(handles.get(image)),
        config: detail.config.map(|detail| config(detail, shows_env)),
        layers: detail.layers.into_iter().map(layer).collect(),
    }
}

fn config(config: ImageConfigDetail, shows_env: bool) -> types::ImageConfigDetail {
    let labels = config.labels.as_ref().and_then(serde_json::Value::as_object);
    let mut labels: Vec<_> =
        labels.into_iter().flatten().map(|(key, value)| (key.clone(), label(value).into_owned())).collect();
    labels.sort_unstable();
    types::ImageConfigDetail {
        digest: config.digest,
        env: shows_env.then_some(config.env),
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

pub(super) fn pruned(pruned: Pruned) -> types::ImagePruneReport {
    let Pruned { references, freed } = pruned;
    types::ImagePruneReport {
        image_refs_removed: u32::try_from(references).unwrap_or(u32::MAX),
        manifests_removed: freed.manifests,
        layers_removed: freed.layers,
        fsmeta_removed: freed.fsmeta,
        vmdk_removed: freed.vmdk,
        bytes_reclaimed: Some(freed.bytes),
    }
}

pub(super) fn usage(answer: Usage, session: &Session, handles: &Handles) -> usage::ImageUsage {
    let record = &session.images.get(answer.image).record;
    let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
    usage::ImageUsage {
        reference: handles.get(answer.image).reference.to_string(),
        sandboxes: count(&record.users.sandboxes),
        snapshots: count(&record.users.snapshots),
        pinned: record.pinned,
        origin: match record.origin {
            Origin::Registry => usage::Origin::Registry,
            Origin::Archive => usage::Origin::Archive,
            Origin::Unknown => usage::Origin::Unknown,
        },
        lacks: answer.lacks.map(right),
    }
}

pub(super) fn cost(cost: Cost, handles: &Handles) -> usage::ImageCost {
    usage::ImageCost {
        reference: handles.get(cost.image).reference.to_string(),
        unique_bytes: cost.unique_bytes,
        shared_bytes: cost.shared_bytes,
    }
}

pub(super) fn history((image, history): (usize, ImageHistory), handles: &Handles) -> usage::ImageHistory {
    /// The most boots that the contract has.
    const BOOTS: usize = 32;
    let millis = |pull: crate::snapshot::Pull| u64::try_from(pull.duration.as_millis()).unwrap_or(u64::MAX);
    usage::ImageHistory {
        reference: handles.get(image).reference.to_string(),
        first_seen_at: history.first_seen_at.map(datetime),
        boots: history.boots.into_iter().take(BOOTS).map(datetime).collect(),
        boot_count: history.boot_count,
        arrivals: history.arrivals,
        pull_millis: history.last_pull.map(millis),
        pull_bytes: history.last_pull.map(|pull| pull.bytes),
    }
}

pub(super) fn disk(disk: DiskStatus) -> usage::DiskStatus {
    usage::DiskStatus {
        cache_bytes: disk.cache_bytes,
        capacity_bytes: disk.capacity_bytes,
        available_bytes: disk.available_bytes,
    }
}

pub(super) fn budget(remaining: Remaining) -> usage::Budget {
    usage::Budget {
        removals: remaining.removals.map(|removals| u32::try_from(removals).unwrap_or(u32::MAX)),
        bytes: remaining.bytes,
    }
}

pub(super) fn error(error: GuestError, session: &Session, handles: &Handles) -> types::Error {
    match error {
        GuestError::NotFound(reference) => types::Error::ImageNotFound(reference),
        GuestError::InUse(image) => {
            let users = &session.images.get(image).record.users;
            types::Error::ImageInUse(types::ImageUsers {
                reference: Arc::clone(&handles.get(image).reference),
                sandboxes: users.sandboxes.clone(),
                snapshots: users.snapshots.clone(),
            })
        }
        GuestError::Denied { right: lacking, image, message } => types::Error::Denied(types::Denial {
            right: right(lacking),
            reference: image.map(|image| Arc::clone(&handles.get(image).reference)),
            message,
        }),
        GuestError::Invalid { text, problem } => types::Error::InvalidReference((text, problem)),
        GuestError::Other(message) => types::Error::Other(message.to_owned()),
    }
}

fn right(right: Right) -> types::Right {
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

pub(super) fn level(level: report::Level) -> LogLevel {
    match level {
        report::Level::Debug => LogLevel::Debug,
        report::Level::Info => LogLevel::Info,
        report::Level::Warn => LogLevel::Warn,
        report::Level::Error => LogLevel::Error,
    }
}
