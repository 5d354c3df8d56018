//! The images that are removed together, in the order of their removal.

use std::cmp::Ordering;

use larder_guest::{Image, Right, Timestamp};

/// The tags of one manifest. One of them alone frees almost nothing, so they are removed together, and their last use
/// is that of the most recently used of them.
pub(crate) struct Unit {
    /// Never empty; the most recently used first.
    images: Vec<Image>,
}

impl Unit {
    /// Returns all tags.
    pub(crate) fn references(&self) -> Vec<&str> {
        self.images.iter().map(|image| image.handle.reference.as_str()).collect()
    }

    /// Returns why none of them is removed, if one stays: its manifest stays with it, and so do all the bytes.
    pub(crate) fn held_by(&self) -> Option<String> {
        let obstacle = |image: &Image| match image.usage.lacks {
            // What remains of the caps changes with each removal: the sweep asks for it.
            None | Some(Right::Budget) => None,
            Some(right) => Some(right.obstacle().to_owned()),
        };
        let holder = self.images.iter().find_map(Image::held_by);
        let holder = holder.or_else(|| self.images.iter().find_map(obstacle))?;
        Some(if self.images.len() == 1 {
            holder
        } else {
            format!("{holder}: this tag, or another of its manifest")
        })
    }

    /// Tells whether another unit is of the same manifest. An image without a manifest is a unit by itself.
    fn has_manifest_of(&self, other: &Unit) -> bool {
        let digest = &self.images[0].handle.manifest_digest;
        digest.is_some() && *digest == other.images[0].handle.manifest_digest
    }

    /// Returns its last use in words.
    pub(crate) fn touched(&self, now: Timestamp) -> String {
        self.images[0].handle.touched(now)
    }
}

/// Returns a key by which images are sorted by their last use. One without any date counts as just used: it is last.
fn recency(image: &Image) -> (bool, Option<Timestamp>) {
    let touched = image.handle.touched_at();
    (touched.is_none(), touched)
}

/// Returns all units, the least recently used first; those of one instant by reference.
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
