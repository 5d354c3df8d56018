//! What goes or stays together, in the order in which it goes.

use std::cmp::Ordering;

use larder_guest::{Image, Timestamp};

/// The tags of one manifest. One of them alone frees almost nothing, so they go together, and their last use is
/// that of the most recently used of them.
pub(crate) struct Unit {
    /// Never empty; the most recently used first.
    images: Vec<Image>,
}

impl Unit {
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

    /// Whether another unit is of the same manifest. What has none is a unit by itself.
    fn has_manifest_of(&self, other: &Unit) -> bool {
        let digest = &self.images[0].handle.manifest_digest;
        digest.is_some() && *digest == other.images[0].handle.manifest_digest
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
    let alone = |image| Unit { images: vec![image] };
    // One image each, with the tags of a manifest beside each other.
    let mut tags: Vec<Unit> = images.into_iter().map(alone).collect();
    sort(&mut tags, |a, b| {
        let manifests = a.handle.manifest_digest.cmp(&b.handle.manifest_digest);
        manifests.then_with(|| recency(b).cmp(&recency(a)))
    });
    let mut units: Vec<Unit> = Vec::with_capacity(tags.len());
    for tag in tags {
        match units.last_mut() {
            Some(unit) if unit.has_manifest_of(&tag) => unit.images.extend(tag.images),
            _ => units.push(tag),
        }
    }
    sort(&mut units, |a, b| recency(a).cmp(&recency(b)));
    units
}

/// Sorts by the first image of each; equal ones by its reference.
fn sort(units: &mut [Unit], by: fn(&Image, &Image) -> Ordering) {
    units.sort_unstable_by(|a, b| {
        let (a, b) = (&a.images[0], &b.images[0]);
        by(a, b).then_with(|| a.handle.reference.cmp(&b.handle.reference))
    });
}
