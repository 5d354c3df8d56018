//! What goes or stays together, in the order in which it goes.

use std::collections::HashMap;

use larder_guest::{Image, Timestamp};

/// The tags of one manifest. One of them alone frees almost nothing, so they go together, and their last use is
/// that of the most recently used of them.
pub(crate) struct Unit {
    /// Never empty; the most recently used first.
    images: Vec<Image>,
}

impl Unit {
    fn new(mut images: Vec<Image>) -> Self {
        images.sort_by(|a, b| {
            recency(b).cmp(&recency(a)).then_with(|| a.handle.reference.cmp(&b.handle.reference))
        });
        Self { images }
    }

    /// All tags.
    pub(crate) fn references(&self) -> Vec<&str> {
        self.images.iter().map(|image| image.handle.reference.as_str()).collect()
    }

    /// Why none of them goes: one tag that is in use or pinned keeps the manifest, and so all the bytes.
    pub(crate) fn held_by(&self) -> Option<String> {
        let holder = self.images.iter().find_map(Image::held_by)?;
        Some(if self.images.len() == 1 {
            holder
        } else {
            format!("{holder}: this tag, or another of its manifest")
        })
    }

    /// When it was last used, in words.
    pub(crate) fn touched(&self, now: Timestamp) -> String {
        self.images[0].handle.touched(now)
    }
}

/// How recently an image was used, for comparing. One without any date counts as just used: it goes last.
fn recency(image: &Image) -> (bool, Option<Timestamp>) {
    let touched = image.handle.touched_at();
    (touched.is_none(), touched)
}

/// All units, the least recently used first; of one instant, by reference.
pub(crate) fn units(images: Vec<Image>) -> Vec<Unit> {
    let mut by_manifest: HashMap<String, Vec<Image>> = HashMap::new();
    let mut units = Vec::with_capacity(images.len());
    for image in images {
        match image.handle.manifest_digest.clone() {
            None => units.push(Unit::new(vec![image])),
            Some(digest) => by_manifest.entry(digest).or_default().push(image),
        }
    }
    units.extend(by_manifest.into_values().map(Unit::new));
    units.sort_by(|a, b| {
        let (a, b) = (&a.images[0], &b.images[0]);
        recency(a).cmp(&recency(b)).then_with(|| a.handle.reference.cmp(&b.handle.reference))
    });
    units
}
