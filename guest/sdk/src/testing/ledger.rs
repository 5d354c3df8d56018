//! The bytes of a cache and what holds them: references and users hold manifests, manifests hold layers.

use std::collections::HashMap;

use super::FakeImage;

#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    manifests: HashMap<String, Manifest>,
    layers: HashMap<String, Layer>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Manifest {
    pub(super) sandboxes: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) layers: Vec<String>,
    metadata_bytes: u64,
    references: usize,
}

#[derive(Debug, Clone)]
struct Layer {
    bytes: u64,
    /// The number of manifests that have it and that are still there.
    manifests: usize,
}

/// What is freed when references are removed.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub(super) manifests: u32,
    pub(super) layers: u32,
    pub(super) bytes: u64,
}

/// Returns the key of an image's manifest. An image without a digest shares its manifest with none.
fn key(image: &FakeImage) -> &str {
    image.handle.manifest_digest.as_deref().unwrap_or(&image.handle.reference)
}

impl Ledger {
    pub(super) fn add(&mut self, image: &FakeImage) {
        let manifest = self.manifests.entry(key(image).to_owned()).or_default();
        if manifest.references == 0 {
            manifest.metadata_bytes = image.metadata_bytes;
            for (name, bytes) in &image.layers {
                let layer = self.layers.entry(name.clone()).or_insert(Layer { bytes: *bytes, manifests: 0 });
                assert_eq!(layer.bytes, *bytes, "the layer {name} has two sizes");
                layer.manifests += 1;
                manifest.layers.push(name.clone());
            }
        }
        manifest.references += 1;
        manifest.sandboxes.extend_from_slice(&image.sandboxes);
        manifest.snapshots.extend_from_slice(&image.snapshots);
    }

    pub(super) fn manifest(&self, image: &FakeImage) -> &Manifest {
        &self.manifests[key(image)]
    }

    pub(super) fn layer_bytes(&self, name: &str) -> u64 {
        self.layers[name].bytes
    }

    /// Returns the bytes of all manifests and layers.
    pub(super) fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.values().map(|layer| layer.bytes).sum();
        layers + self.manifests.values().map(|manifest| manifest.metadata_bytes).sum::<u64>()
    }

    /// Returns the bytes that an image shares with others.
    pub(super) fn shared_bytes(&self, image: &FakeImage) -> u64 {
        let manifest = self.manifest(image);
        let tagged_twice = manifest.references > 1;
        let layers = manifest.layers.iter().map(|name| &self.layers[name]);
        let shared = layers.filter(|layer| tagged_twice || layer.manifests > 1).map(|layer| layer.bytes);
        shared.sum::<u64>() + if tagged_twice { manifest.metadata_bytes } else { 0 }
    }

    /// Returns what is freed if all of these are removed. A manifest is removed with its last reference, unless it is in
    /// use.
    pub(super) fn freed<'a>(&self, images: impl IntoIterator<Item = &'a FakeImage>) -> Freed {
        let mut references: HashMap<&str, usize> = HashMap::new();
        for image in images {
            *references.entry(key(image)).or_default() += 1;
        }
        let mut freed = Freed::default();
        let mut holders: HashMap<&str, usize> = HashMap::new();
        for (key, count) in references {
            let manifest = &self.manifests[key];
            if count == manifest.references && !manifest.in_use() {
                freed.manifests += 1;
                freed.bytes += manifest.metadata_bytes;
                for name in &manifest.layers {
                    *holders.entry(name).or_default() += 1;
                }
            }
        }
        for (name, count) in holders {
            let layer = &self.layers[name];
            if count == layer.manifests {
                freed.layers += 1;
                freed.bytes += layer.bytes;
            }
        }
        freed
    }

    /// Removes one reference. Returns the bytes that this frees.
    pub(super) fn remove(&mut self, image: &FakeImage) -> u64 {
        let freed = self.freed([image]).bytes;
        let Some(manifest) = self.manifests.get_mut(key(image)) else { return 0 };
        manifest.references -= 1;
        if !manifest.is_there() {
            for name in &manifest.layers {
                self.layers.entry(name.clone()).and_modify(|layer| layer.manifests -= 1);
            }
        }
        freed
    }

    /// Takes back what [`remove`](Self::remove) did.
    pub(super) fn restore(&mut self, image: &FakeImage) {
        let Some(manifest) = self.manifests.get_mut(key(image)) else { return };
        if !manifest.is_there() {
            for name in &manifest.layers {
                self.layers.entry(name.clone()).and_modify(|layer| layer.manifests += 1);
            }
        }
        manifest.references += 1;
    }

    /// Returns the bytes of everything that was removed.
    pub(super) fn freed_so_far(&self) -> u64 {
        let manifests = self.manifests.values().filter(|manifest| !manifest.is_there());
        let layers = self.layers.values().filter(|layer| layer.manifests == 0);
        manifests.map(|manifest| manifest.metadata_bytes).sum::<u64>()
            + layers.map(|layer| layer.bytes).sum::<u64>()
    }

    pub(super) fn is_in_use(&self, image: &FakeImage) -> bool {
        self.manifest(image).in_use()
    }
}

impl Manifest {
    fn in_use(&self) -> bool {
        !self.sandboxes.is_empty() || !self.snapshots.is_empty()
    }

    fn is_there(&self) -> bool {
        self.references > 0 || self.in_use()
    }
}
