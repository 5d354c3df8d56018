//! The images of the cache in memory.

use super::NOW;
use super::reference::Reference;
use crate::{Age, ImageConfigDetail, ImageHandle, ImageHistory, Origin, Right, Size, Timestamp};

/// An image in a [`FakeCache`](super::FakeCache), without dates, layers and users until they are set.
///
/// Ages and sizes are written as operators write them. One that does not parse panics, as a test should.
#[derive(Debug, Clone)]
pub struct FakeImage {
    pub(super) handle: ImageHandle,
    pub(super) layers: Vec<(String, u64)>,
    pub(super) metadata_bytes: u64,
    pub(super) config: Option<ImageConfigDetail>,
    pub(super) history: ImageHistory,
    pub(super) sandboxes: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) pinned: bool,
    pub(super) origin: Origin,
    pub(super) refused: Option<Right>,
}

impl FakeImage {
    /// Makes an image from a registry, with a manifest of its own and 4096 bytes of metadata on disk.
    pub fn new(reference: &str) -> Self {
        let parsed = Reference::parse(reference);
        let handle = ImageHandle {
            reference: reference.to_owned(),
            repository: parsed.as_ref().map_or(reference, |parsed| &parsed.repository).to_owned(),
            tag: parsed.and_then(|parsed| parsed.tag),
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
            history: ImageHistory::default(),
            sandboxes: Vec::new(),
            snapshots: Vec::new(),
            pinned: false,
            origin: Origin::Registry,
            refused: None,
        }
    }

    /// Sets the first arrival of its reference, so long before [`NOW`].
    pub fn created(self, age: &str) -> Self {
        self.created_at(before_now(age))
    }

    /// Sets the first arrival of its reference.
    pub fn created_at(mut self, instant: Timestamp) -> Self {
        self.handle.created_at = Some(instant);
        self
    }

    /// Sets the arrival of its content, so long before [`NOW`]. Without it, that is the first arrival of its reference.
    pub fn arrived(self, age: &str) -> Self {
        self.arrived_at(before_now(age))
    }

    /// Sets the arrival of its content.
    pub fn arrived_at(mut self, instant: Timestamp) -> Self {
        self.handle.arrived_at = Some(instant);
        self
    }

    /// Sets its last use, so long before [`NOW`].
    pub fn used(self, age: &str) -> Self {
        self.used_at(before_now(age))
    }

    /// Sets its last use.
    pub fn used_at(mut self, instant: Timestamp) -> Self {
        self.handle.last_used_at = Some(instant);
        self
    }

    /// Adds a layer on top. Layers of one name are one layer, shared, and of the same size.
    pub fn layer(mut self, name: &str, size: &str) -> Self {
        let size: Size = size.parse().unwrap_or_else(|error| panic!("the layer {name}: {error}"));
        self.layers.push((name.to_owned(), size.bytes()));
        self
    }

    /// Sets its manifest. Images of one manifest take their layers and metadata from the first of them.
    pub fn manifest(mut self, digest: &str) -> Self {
        self.handle.manifest_digest = Some(digest.to_owned());
        self
    }

    /// Sets the bytes on disk that only its manifest has.
    pub fn metadata_bytes(mut self, bytes: u64) -> Self {
        self.metadata_bytes = bytes;
        self
    }

    /// Adds a sandbox that uses it, and with it every other tag of its manifest.
    pub fn sandbox(mut self, name: &str) -> Self {
        self.sandboxes.push(name.to_owned());
        self
    }

    /// Adds a snapshot that uses it, and with it every other tag of its manifest.
    pub fn snapshot(mut self, name: &str) -> Self {
        self.snapshots.push(name.to_owned());
        self
    }

    /// Pins it: its removal is denied.
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Sets where it came from.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Sets its config.
    pub fn config(mut self, config: ImageConfigDetail) -> Self {
        self.config = Some(config);
        self
    }

    /// Sets its history. The reference is filled in.
    pub fn history(mut self, history: ImageHistory) -> Self {
        self.history = ImageHistory { reference: self.handle.reference.clone(), ..history };
        self
    }

    /// Withholds a right for it: a call that needs the right is denied.
    ///
    /// # Panics
    ///
    /// Panics on a right that no image can lack alone. Hidden images are left out of a cache, and caps are the cache's.
    pub fn refused(mut self, right: Right) -> Self {
        let is_of_image = matches!(right, Right::Inspect | Right::Remove | Right::Force | Right::Protected);
        assert!(is_of_image, "{right:?} is not a right of one image");
        self.refused = Some(right);
        self
    }
}

impl FakeImage {
    /// Fills in what follows from the rest: the size of its layers, and its arrival.
    pub(super) fn complete(&mut self, bytes: u64) {
        let handle = &mut self.handle;
        handle.size_bytes = i64::try_from(bytes).ok();
        handle.arrived_at = handle.arrived_at.max(handle.created_at);
        self.history.reference.clone_from(&handle.reference);
    }
}

fn before_now(age: &str) -> Timestamp {
    let age: Age = age.parse().unwrap_or_else(|error| panic!("{error}"));
    NOW.checked_sub(age).unwrap_or_else(|| panic!("{age} before now cannot be written"))
}
