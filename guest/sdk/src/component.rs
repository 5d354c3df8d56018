//! The component side: a [`Policy`] as the export, a [`Cache`] over the imports.

use std::marker::PhantomData;
use std::sync::Once;

use self::bindings::exports::larder::image::policy::{Description, Guest, Request};
use self::bindings::larder::image::{images, report, types, usage};
use crate::{
    Cache, Denial, DiskStatus, Error, ImageConfigDetail, ImageDetail, ImageFilter, ImageHandle,
    ImageLayerDetail, ImagePruneReport, ImageUsage, ImageUsers, Level, Order, Origin, Policy, Right,
    Timestamp,
};

#[expect(missing_docs, reason = "generated; the WIT has the docs")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "image-policy",
        pub_export_macro: true,
    });
}

/// The export of a policy component.
pub struct Component<P>(PhantomData<P>);

impl<P: Policy> Guest for Component<P> {
    fn describe() -> Description {
        let description = crate::describe::<P>();
        Description {
            name: description.name.to_owned(),
            version: description.version.to_owned(),
            summary: description.summary.to_owned(),
            config_schema: description.config_schema,
        }
    }

    fn evaluate(request: Request) -> Result<(), String> {
        log_panics();
        let now = timestamp(request.now).ok_or("the host gave a `now` of more than 999999999 nanoseconds")?;
        crate::evaluate::<P>(&request.config, now, &mut Host).map_err(crate::Failure::into_sentence)
    }
}

/// A panic becomes a trap, which has no text of its own: the operator's log gets the message first.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| report::log(report::Level::Error, &panic.to_string())));
    });
}

/// The cache behind the imports.
struct Host;

impl Cache for Host {
    fn list(&self) -> Result<Vec<ImageHandle>, Error> {
        Ok(images::list()?.into_iter().map(ImageHandle::from).collect())
    }

    fn get(&self, reference: &str) -> Result<ImageHandle, Error> {
        Ok(images::get(reference)?.into())
    }

    fn inspect(&self, reference: &str) -> Result<ImageDetail, Error> {
        Ok(images::inspect(reference)?.into())
    }

    fn select(&self, filter: &ImageFilter) -> Result<Vec<ImageHandle>, Error> {
        Ok(images::select(&filter.into())?.into_iter().map(ImageHandle::from).collect())
    }

    fn remove(&mut self, reference: &str, force: bool) -> Result<(), Error> {
        Ok(images::remove(reference, force)?)
    }

    fn prune(&mut self) -> Result<ImagePruneReport, Error> {
        let report = images::prune()?;
        Ok(ImagePruneReport {
            image_refs_removed: report.image_refs_removed,
            manifests_removed: report.manifests_removed,
            layers_removed: report.layers_removed,
            fsmeta_removed: report.fsmeta_removed,
            vmdk_removed: report.vmdk_removed,
            bytes_reclaimed: report.bytes_reclaimed,
        })
    }

    fn list_usage(&self) -> Result<Vec<ImageUsage>, Error> {
        Ok(usage::list_usage()?.into_iter().map(ImageUsage::from).collect())
    }

    fn get_usage(&self, reference: &str) -> Result<ImageUsage, Error> {
        Ok(usage::get_usage(reference)?.into())
    }

    fn reclaimable_bytes(&self, references: &[&str]) -> Result<u64, Error> {
        let references: Vec<String> = references.iter().map(|&reference| reference.to_owned()).collect();
        Ok(usage::reclaimable_bytes(&references)?)
    }

    fn disk(&self) -> Result<DiskStatus, Error> {
        let usage::DiskStatus { cache_bytes, capacity_bytes, available_bytes } = usage::disk()?;
        Ok(DiskStatus { cache_bytes, capacity_bytes, available_bytes })
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => report::Level::Debug,
            Level::Info => report::Level::Info,
            Level::Warn => report::Level::Warn,
            Level::Error => report::Level::Error,
        };
        report::log(level, message);
    }

    fn explain(&mut self, reference: &str, reason: &str) {
        report::explain(reference, reason);
    }
}

/// An instant that the contract allows; none for one that it does not.
fn timestamp(instant: types::Datetime) -> Option<Timestamp> {
    Timestamp::new(instant.seconds, instant.nanoseconds)
}

fn datetime(instant: Timestamp) -> types::Datetime {
    types::Datetime { seconds: instant.seconds(), nanoseconds: instant.nanoseconds() }
}

impl From<types::ImageHandle> for ImageHandle {
    fn from(handle: types::ImageHandle) -> Self {
        Self {
            reference: handle.reference,
            size_bytes: handle.size_bytes,
            manifest_digest: handle.manifest_digest,
            architecture: handle.architecture,
            os: handle.os,
            layer_count: handle.layer_count,
            last_used_at: handle.last_used_at.and_then(timestamp),
            created_at: handle.created_at.and_then(timestamp),
        }
    }
}

impl From<types::ImageDetail> for ImageDetail {
    fn from(detail: types::ImageDetail) -> Self {
        Self {
            handle: detail.handle.into(),
            config: detail.config.map(ImageConfigDetail::from),
            layers: detail.layers.into_iter().map(ImageLayerDetail::from).collect(),
        }
    }
}

impl From<types::ImageConfigDetail> for ImageConfigDetail {
    fn from(config: types::ImageConfigDetail) -> Self {
        Self {
            digest: config.digest,
            env: config.env,
            cmd: config.cmd,
            entrypoint: config.entrypoint,
            working_dir: config.working_dir,
            user: config.user,
            labels: config.labels,
            stop_signal: config.stop_signal,
        }
    }
}

impl From<types::ImageLayerDetail> for ImageLayerDetail {
    fn from(layer: types::ImageLayerDetail) -> Self {
        Self {
            diff_id: layer.diff_id,
            blob_digest: layer.blob_digest,
            media_type: layer.media_type,
            compressed_size_bytes: layer.compressed_size_bytes,
            erofs_size_bytes: layer.erofs_size_bytes,
            position: layer.position,
        }
    }
}

impl From<usage::ImageUsage> for ImageUsage {
    fn from(usage: usage::ImageUsage) -> Self {
        Self {
            reference: usage.reference,
            sandboxes: usage.sandboxes,
            snapshots: usage.snapshots,
            pinned: usage.pinned,
            origin: match usage.origin {
                usage::Origin::Registry => Origin::Registry,
                usage::Origin::Archive => Origin::Archive,
                usage::Origin::Unknown => Origin::Unknown,
            },
            unique_bytes: usage.unique_bytes,
            shared_bytes: usage.shared_bytes,
        }
    }
}

impl From<&ImageFilter> for images::ImageFilter {
    fn from(filter: &ImageFilter) -> Self {
        Self {
            reference: filter.reference.clone(),
            unused_since: filter.unused_since.map(datetime),
            created_before: filter.created_before.map(datetime),
            min_size_bytes: filter.min_size_bytes,
            unused: filter.unused,
            order: match filter.order {
                Order::CreatedNewestFirst => images::Order::CreatedNewestFirst,
                Order::CreatedOldestFirst => images::Order::CreatedOldestFirst,
                Order::UsedNewestFirst => images::Order::UsedNewestFirst,
                Order::UsedOldestFirst => images::Order::UsedOldestFirst,
                Order::LargestFirst => images::Order::LargestFirst,
                Order::SmallestFirst => images::Order::SmallestFirst,
            },
            after: filter.after.clone(),
            limit: filter.limit,
        }
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        match error {
            types::Error::ImageNotFound(reference) => Error::ImageNotFound(reference),
            types::Error::ImageInUse(types::ImageUsers { reference, sandboxes, snapshots }) => {
                Error::ImageInUse(ImageUsers { reference, sandboxes, snapshots })
            }
            types::Error::Unsupported(message) => Error::Unsupported(message),
            types::Error::Denied(types::Denial { right, reference, message }) => {
                Error::Denied(Denial { right: right.into(), reference, message })
            }
            types::Error::InvalidReference(reference) => Error::InvalidReference(reference),
            types::Error::Other(message) => Error::Other(message),
        }
    }
}

impl From<types::Right> for Right {
    fn from(right: types::Right) -> Self {
        match right {
            types::Right::Read => Right::Read,
            types::Right::Inspect => Right::Inspect,
            types::Right::Remove => Right::Remove,
            types::Right::Force => Right::Force,
            types::Right::Prune => Right::Prune,
            types::Right::Budget => Right::Budget,
            types::Right::Protected => Right::Protected,
        }
    }
}
