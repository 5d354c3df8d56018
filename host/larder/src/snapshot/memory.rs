//! A cache that exists in memory only: a scenario to try a policy on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{
    CacheSnapshot, CostGraph, CostGraphBuilder, DiskStatus, FileCost, ImageHistory, ImageRecord, ImageUsers,
    Origin,
};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImageConfigDetail, ImageDetail, ImageHandle, ImageLayerDetail};
use crate::reference::Digest;

/// An image of a [`MemoryCache`].
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryImage {
    /// The reference as it stands in the index.
    pub reference: String,
    /// What its manifest is made of: images with the same text are tags of one manifest. Default: the reference.
    pub manifest: String,
    /// The names of its layers, bottom to top; images that name the same layer share it.
    pub layers: Vec<String>,
    /// Compressed size of all layers in bytes.
    pub size_bytes: Option<i64>,
    /// When its reference first came into the cache.
    pub created_at: Option<DateTime<Utc>>,
    /// When the manifest that it names came in, where that was later than `created_at`.
    pub arrived_at: Option<DateTime<Utc>>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Names of the sandboxes that use it.
    pub sandboxes: Vec<String>,
    /// Names of the snapshots taken from it.
    pub snapshots: Vec<String>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Where it came from.
    pub origin: Origin,
    /// What is recorded of its past.
    pub history: ImageHistory,
    /// Environment variables as `KEY=value`.
    pub env: Vec<String>,
    /// Labels, a JSON object.
    pub labels: Option<serde_json::Value>,
}

impl MemoryImage {
    /// An image that nothing uses and of which nothing else is known.
    pub fn new(reference: impl Into<String>) -> Self {
        let reference = reference.into();
        Self {
            manifest: reference.clone(),
            reference,
            layers: Vec::new(),
            size_bytes: None,
            created_at: None,
            arrived_at: None,
            last_used_at: None,
            sandboxes: Vec::new(),
            snapshots: Vec::new(),
            pinned: false,
            origin: Origin::Unknown,
            history: ImageHistory::default(),
            env: Vec::new(),
            labels: None,
        }
    }

    /// The same, with a manifest that came in at this instant: a tag that was pulled again.
    #[must_use]
    pub fn with_arrived_at(mut self, arrived_at: DateTime<Utc>) -> Self {
        self.arrived_at = Some(arrived_at);
        self
    }

    fn users(&self) -> ImageUsers {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        ImageUsers { sandboxes: sorted(&self.sandboxes), snapshots: sorted(&self.snapshots) }
    }

    fn handle(&self) -> ImageHandle {
        ImageHandle {
            architecture: Some("amd64".to_owned()),
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            layer_count: self.layers.len(),
            manifest_digest: Some(Digest::of(self.manifest.as_bytes()).to_string()),
            os: Some("linux".to_owned()),
            reference: self.reference.clone(),
            size_bytes: self.size_bytes,
        }
    }
}

/// A cache in memory. It is the state that it was made with, for ever.
#[derive(Debug, Clone)]
pub struct MemoryCache {
    images: Vec<MemoryImage>,
    layer_bytes: HashMap<String, u64>,
    disk: DiskStatus,
}

impl MemoryCache {
    /// A cache with these images, on a disk of 100 GiB of which half is free.
    pub fn new(images: impl IntoIterator<Item = MemoryImage>) -> Self {
        let disk = DiskStatus { cache_bytes: 0, capacity_bytes: 100 << 30, available_bytes: 50 << 30 };
        let mut cache = Self { images: images.into_iter().collect(), layer_bytes: HashMap::new(), disk };
        cache.sort();
        cache
    }

    /// The same with one more image.
    #[must_use]
    pub fn with_image(mut self, image: MemoryImage) -> Self {
        self.images.push(image);
        self.sort();
        self
    }

    /// The same with a layer that takes this many allocated bytes; a layer that is not given takes none.
    #[must_use]
    pub fn with_layer(mut self, name: impl Into<String>, bytes: u64) -> Self {
        self.layer_bytes.insert(name.into(), bytes);
        self
    }

    /// The same on this disk.
    #[must_use]
    pub fn with_disk(mut self, disk: DiskStatus) -> Self {
        self.disk = disk;
        self
    }

    /// Newest created first, as [`CacheSnapshot::images`] wants them.
    fn sort(&mut self) {
        self.images
            .sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.reference.cmp(&b.reference)));
    }

    /// Its images, newest created first.
    pub fn states(&self) -> Vec<ImageRecord> {
        let state = |image: &MemoryImage| ImageRecord {
            handle: image.handle(),
            users: image.users(),
            pinned: image.pinned,
            origin: image.origin,
            // A time that is not known is earlier than every time.
            arrived_at: image.created_at.max(image.arrived_at),
        };
        self.images.iter().map(state).collect()
    }
}

impl CacheSnapshot for MemoryCache {
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
        Ok(self.states())
    }

    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
        let image = self.images.iter().find(|image| image.reference == reference);
        let image = image.ok_or_else(|| MicrosandboxError::ImageNotFound(reference.to_owned()))?;
        let layer = |(name, position): (&String, i32)| ImageLayerDetail {
            blob_digest: Digest::of(name.as_bytes()).to_string(),
            compressed_size_bytes: None,
            diff_id: Digest::of(name.as_bytes()).to_string(),
            erofs_size_bytes: self.layer_bytes.get(name).and_then(|&bytes| i64::try_from(bytes).ok()),
            media_type: None,
            position,
        };
        Ok(ImageDetail {
            config: Some(ImageConfigDetail {
                cmd: None,
                digest: Digest::of(image.reference.as_bytes()).to_string(),
                entrypoint: None,
                env: image.env.clone(),
                labels: image.labels.clone(),
                stop_signal: None,
                user: None,
                working_dir: None,
            }),
            handle: image.handle(),
            layers: image.layers.iter().zip(0..).map(layer).collect(),
        })
    }

    fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
        let mut graph = CostGraphBuilder::new();
        let (mut layers, mut manifests) = (HashMap::new(), HashMap::new());
        for image in &self.images {
            manifests.entry(&image.manifest).or_insert_with(|| {
                let layer = |name| {
                    let bytes = self.layer_bytes.get(name).copied().unwrap_or_default();
                    *layers.entry(name).or_insert_with(|| graph.layer(Some(FileCost::of(bytes))))
                };
                let layers: Vec<_> = image.layers.iter().map(layer).collect();
                graph.manifest(None, None, &layers)
            });
        }
        for image in self.images.iter().filter(|image| !image.users().is_empty()) {
            graph.hold(manifests[&image.manifest]);
        }
        for image in &self.images {
            graph.image(None, Some(manifests[&image.manifest]));
        }
        Ok(graph.build())
    }

    fn history(&mut self) -> MicrosandboxResult<Vec<ImageHistory>> {
        Ok(self.images.iter().map(|image| image.history.clone()).collect())
    }

    fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
        Ok(self.disk)
    }
}
