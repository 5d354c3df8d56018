//! What a fake cache is made of.

use super::NOW;
use crate::{Age, ImageConfigDetail, ImageHandle, Origin, Right, Size, Timestamp};

/// An image in a [`FakeCache`](super::FakeCache): without dates, layers and users until they are given.
///
/// Ages and sizes are written as operators write them. One that does not parse panics, as a test should.
#[derive(Debug, Clone)]
pub struct FakeImage {
    pub(super) handle: ImageHandle,
    pub(super) layers: Vec<(String, u64)>,
    pub(super) metadata_bytes: u64,
    pub(super) config: Option<ImageConfigDetail>,
    pub(super) sandboxes: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) pinned: bool,
    pub(super) origin: Origin,
    pub(super) refused: Option<Right>,
}

impl FakeImage {
    /// An image from a registry, with a manifest of its own and 4096 bytes of metadata on disk.
    pub fn new(reference: &str) -> Self {
        let handle = ImageHandle {
            reference: reference.to_owned(),
            manifest_digest: Some(format!("manifest of {reference}")),
            architecture: Some("amd64".into()),
            os: Some("linux".into()),
            ..ImageHandle::default()
        };
        Self {
            handle,
            layers: Vec::new(),
            metadata_bytes: 4096,
            config: None,
            sandboxes: Vec::new(),
            snapshots: Vec::new(),
            pinned: false,
            origin: Origin::Registry,
            refused: None,
        }
    }

    /// Created so long before [`NOW`].
    pub fn created(self, age: &str) -> Self {
        self.created_at(before_now(age))
    }

    /// Created at this instant.
    pub fn created_at(mut self, instant: Timestamp) -> Self {
        self.handle.created_at = Some(instant);
        self
    }

    /// Last used so long before [`NOW`].
    pub fn used(self, age: &str) -> Self {
        self.used_at(before_now(age))
    }

    /// Last used at this instant.
    pub fn used_at(mut self, instant: Timestamp) -> Self {
        self.handle.last_used_at = Some(instant);
        self
    }

    /// With one more layer on top. Layers of one name are one layer, shared, and of the same size.
    pub fn layer(mut self, name: &str, size: &str) -> Self {
        let size: Size = size.parse().unwrap_or_else(|error| panic!("the layer {name}: {error}"));
        self.layers.push((name.to_owned(), size.bytes()));
        self
    }

    /// A tag of this manifest. Images of one manifest take their layers and metadata from the first of them.
    pub fn manifest(mut self, digest: &str) -> Self {
        self.handle.manifest_digest = Some(digest.to_owned());
        self
    }

    /// With so many bytes on disk that belong to its manifest alone.
    pub fn metadata_bytes(mut self, bytes: u64) -> Self {
        self.metadata_bytes = bytes;
        self
    }

    /// Used by this sandbox, and with it every other tag of its manifest.
    pub fn sandbox(mut self, name: &str) -> Self {
        self.sandboxes.push(name.to_owned());
        self
    }

    /// Used by this snapshot, and with it every other tag of its manifest.
    pub fn snapshot(mut self, name: &str) -> Self {
        self.snapshots.push(name.to_owned());
        self
    }

    /// Pinned by the operator: its removal is denied.
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// From here.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// With this config.
    pub fn config(mut self, config: ImageConfigDetail) -> Self {
        self.config = Some(config);
        self
    }

    /// The grant lacks this right: its removal is denied.
    pub fn refused(mut self, right: Right) -> Self {
        self.refused = Some(right);
        self
    }
}

fn before_now(age: &str) -> Timestamp {
    let age: Age = age.parse().unwrap_or_else(|error| panic!("{error}"));
    NOW.checked_sub(age).unwrap_or_else(|| panic!("{age} before now cannot be written"))
}
