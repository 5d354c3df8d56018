//! The fake cache itself.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::HashMap;

use super::ledger::Ledger;
use super::{FakeImage, pattern};
use crate::{
    Cache, Denial, DiskStatus, Error, ImageDetail, ImageFilter, ImageHandle, ImageLayerDetail,
    ImagePruneReport, ImageUsage, ImageUsers, Level, Order, Right, Size, normalize,
};

/// An image cache in memory, and what a policy did to it.
#[derive(Debug, Clone)]
pub struct FakeCache {
    /// Newest created first, as they are listed; what was removed stays here, for the report.
    images: Vec<FakeImage>,
    /// Where an image stands in `images`, while it is not removed.
    present: HashMap<String, usize>,
    ledger: Ledger,
    disk: DiskStatus,
    staged: Vec<String>,
    reasons: HashMap<String, String>,
    logs: Vec<(Level, String)>,
    host_calls: Cell<u64>,
}

impl FakeCache {
    /// A cache of these images, on a disk of 1 TiB that holds nothing else.
    pub fn new(images: impl IntoIterator<Item = FakeImage>) -> Self {
        let mut images: Vec<FakeImage> = images.into_iter().collect();
        let mut ledger = Ledger::default();
        for image in &mut images {
            ledger.add(image);
            let layers = &ledger.manifest(image).layers;
            image.handle.layer_count = u32::try_from(layers.len()).unwrap_or(u32::MAX);
            let bytes: u64 = layers.iter().map(|name| ledger.layer_bytes(name)).sum();
            image.handle.size_bytes = i64::try_from(bytes).ok();
        }
        images.sort_by_cached_key(|image| Reverse(image.handle.created_at));
        let present: HashMap<_, _> =
            images.iter().enumerate().map(|(index, image)| (image.handle.reference.clone(), index)).collect();
        assert_eq!(present.len(), images.len(), "a reference stands for one image");
        let capacity_bytes = 1 << 40;
        let cache_bytes = ledger.bytes();
        let disk = DiskStatus {
            cache_bytes,
            capacity_bytes,
            available_bytes: capacity_bytes.saturating_sub(cache_bytes),
        };
        Self {
            images,
            present,
            ledger,
            disk,
            staged: Vec::new(),
            reasons: HashMap::new(),
            logs: Vec::new(),
            host_calls: Cell::new(0),
        }
    }

    /// On a disk of this size, of which so much is free.
    pub fn on_disk(mut self, capacity: &str, available: &str) -> Self {
        let bytes = |text: &str| text.parse::<Size>().unwrap_or_else(|error| panic!("{error}")).bytes();
        self.disk.capacity_bytes = bytes(capacity);
        self.disk.available_bytes = bytes(available);
        self
    }

    /// The references that were removed, in that order.
    pub fn staged(&self) -> &[String] {
        &self.staged
    }

    /// The last reason that was given for an image.
    pub fn reason(&self, reference: &str) -> Option<&str> {
        self.reasons.get(reference).map(String::as_str)
    }

    /// What was logged.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.logs
    }

    /// How many calls were made that a component would make to the host.
    pub fn host_calls(&self) -> u64 {
        self.host_calls.get()
    }

    /// One line for each image, newest created first: `remove REFERENCE: REASON` or `keep REFERENCE: REASON`.
    pub fn decisions(&self) -> Vec<String> {
        let line = |image: &FakeImage| {
            let reference = &image.handle.reference;
            let verb = if self.present.contains_key(reference) { "keep" } else { "remove" };
            format!("{verb} {reference}: {}", self.reason(reference).unwrap_or("(no reason given)"))
        };
        self.images.iter().map(line).collect()
    }

    /// Undoes what was staged since `before`.
    pub(super) fn restore(&mut self, before: FakeCache) {
        self.present = before.present;
        self.ledger = before.ledger;
        self.staged = before.staged;
    }

    fn count_call(&self) {
        self.host_calls.set(self.host_calls.get() + 1);
    }

    /// As it stands, then in its normalized form.
    fn find(&self, reference: &str) -> Result<&FakeImage, Error> {
        let index = self.present.get(reference).or_else(|| self.present.get(&normalize(reference)));
        index.map(|&index| &self.images[index]).ok_or_else(|| Error::ImageNotFound(reference.to_owned()))
    }

    fn visible(&self) -> impl Iterator<Item = &FakeImage> {
        self.images.iter().filter(|image| self.present.contains_key(&image.handle.reference))
    }

    /// Why an image is not this run's to remove.
    fn denial(image: &FakeImage) -> Option<Error> {
        let right = image.refused.or(image.pinned.then_some(Right::Protected))?;
        let reference = &image.handle.reference;
        let message = match right {
            Right::Protected => format!("`{reference}` is protected"),
            _ => format!("the grant does not allow to remove `{reference}`"),
        };
        Some(Error::Denied(Denial { right, reference: Some(reference.clone()), message }))
    }

    fn stage(&mut self, reference: &str) {
        if let Some(index) = self.present.remove(reference) {
            self.ledger.remove(&self.images[index]);
            self.staged.push(reference.to_owned());
        }
    }

    fn usage(&self, image: &FakeImage) -> ImageUsage {
        let manifest = self.ledger.manifest(image);
        let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        ImageUsage {
            reference: image.handle.reference.clone(),
            sandboxes: count(&manifest.sandboxes),
            snapshots: count(&manifest.snapshots),
            pinned: image.pinned,
            origin: image.origin,
            unique_bytes: self.ledger.freed([image]).bytes,
            shared_bytes: self.ledger.shared_bytes(image),
        }
    }

    fn meets(&self, image: &FakeImage, filter: &ImageFilter) -> bool {
        let handle = &image.handle;
        filter.reference.as_ref().is_none_or(|pattern| pattern::matches(pattern, &handle.reference))
            && filter.unused_since.is_none_or(|instant| handle.last_used_at.is_none_or(|used| used < instant))
            && filter.created_before.is_none_or(|instant| handle.created_at.is_some_and(|at| at < instant))
            && filter.min_size_bytes.is_none_or(|bytes| handle.size_bytes.is_some_and(|size| size >= bytes))
            && filter.unused.is_none_or(|unused| unused != self.ledger.manifest(image).in_use())
    }
}

/// In an order; what has no date or size counts as the oldest and the smallest. Stable, so ties stay as listed.
fn sort(images: &mut [&FakeImage], order: Order) {
    match order {
        Order::CreatedNewestFirst => images.sort_by_key(|image| Reverse(image.handle.created_at)),
        Order::CreatedOldestFirst => images.sort_by_key(|image| image.handle.created_at),
        Order::UsedNewestFirst => images.sort_by_key(|image| Reverse(image.handle.last_used_at)),
        Order::UsedOldestFirst => images.sort_by_key(|image| image.handle.last_used_at),
        Order::LargestFirst => images.sort_by_key(|image| Reverse(image.handle.size_bytes)),
        Order::SmallestFirst => images.sort_by_key(|image| image.handle.size_bytes),
    }
}

impl Cache for FakeCache {
    fn list(&self) -> Result<Vec<ImageHandle>, Error> {
        self.count_call();
        Ok(self.visible().map(|image| image.handle.clone()).collect())
    }

    fn get(&self, reference: &str) -> Result<ImageHandle, Error> {
        self.count_call();
        Ok(self.find(reference)?.handle.clone())
    }

    fn inspect(&self, reference: &str) -> Result<ImageDetail, Error> {
        self.count_call();
        let image = self.find(reference)?;
        let layer = |(position, name): (usize, &String)| {
            let bytes = i64::try_from(self.ledger.layer_bytes(name)).ok();
            ImageLayerDetail {
                diff_id: format!("diff of {name}"),
                blob_digest: format!("blob of {name}"),
                media_type: None,
                compressed_size_bytes: bytes,
                erofs_size_bytes: bytes,
                position: i32::try_from(position).unwrap_or(i32::MAX),
            }
        };
        let layers = self.ledger.manifest(image).layers.iter().enumerate().map(layer).collect();
        Ok(ImageDetail { handle: image.handle.clone(), config: image.config.clone(), layers })
    }

    fn select(&self, filter: &ImageFilter) -> Result<Vec<ImageHandle>, Error> {
        self.count_call();
        let mut images: Vec<&FakeImage> = self.visible().filter(|image| self.meets(image, filter)).collect();
        sort(&mut images, filter.order);
        let start = match &filter.after {
            None => 0,
            Some(after) => {
                let index = images.iter().position(|image| &image.handle.reference == after);
                index.ok_or_else(|| Error::ImageNotFound(after.clone()))? + 1
            }
        };
        let limit = filter.limit.map_or(usize::MAX, |limit| limit.max(1) as usize);
        Ok(images[start..].iter().take(limit).map(|image| image.handle.clone()).collect())
    }

    fn remove(&mut self, reference: &str, force: bool) -> Result<(), Error> {
        self.count_call();
        let image = self.find(reference)?;
        if let Some(denial) = Self::denial(image) {
            return Err(denial);
        }
        let manifest = self.ledger.manifest(image);
        let reference = image.handle.reference.clone();
        if manifest.in_use() && !force {
            let (sandboxes, snapshots) = (manifest.sandboxes.clone(), manifest.snapshots.clone());
            return Err(Error::ImageInUse(ImageUsers { reference, sandboxes, snapshots }));
        }
        self.stage(&reference);
        Ok(())
    }

    fn prune(&mut self) -> Result<ImagePruneReport, Error> {
        self.count_call();
        let free =
            |image: &&FakeImage| Self::denial(image).is_none() && !self.ledger.manifest(image).in_use();
        let images: Vec<&FakeImage> = self.visible().filter(free).collect();
        let freed = self.ledger.freed(images.iter().copied());
        let references: Vec<String> = images.iter().map(|image| image.handle.reference.clone()).collect();
        for reference in &references {
            self.stage(reference);
        }
        Ok(ImagePruneReport {
            image_refs_removed: u32::try_from(references.len()).unwrap_or(u32::MAX),
            manifests_removed: freed.manifests,
            layers_removed: freed.layers,
            fsmeta_removed: freed.manifests,
            vmdk_removed: freed.manifests,
            bytes_reclaimed: Some(freed.bytes),
        })
    }

    fn list_usage(&self) -> Result<Vec<ImageUsage>, Error> {
        self.count_call();
        Ok(self.visible().map(|image| self.usage(image)).collect())
    }

    fn get_usage(&self, reference: &str) -> Result<ImageUsage, Error> {
        self.count_call();
        Ok(self.usage(self.find(reference)?))
    }

    fn reclaimable_bytes(&self, references: &[&str]) -> Result<u64, Error> {
        self.count_call();
        let mut images = HashMap::new();
        for reference in references {
            let image = self.find(reference)?;
            images.insert(&image.handle.reference, image);
        }
        Ok(self.ledger.freed(images.into_values()).bytes)
    }

    fn disk(&self) -> Result<DiskStatus, Error> {
        self.count_call();
        Ok(self.disk)
    }

    fn log(&mut self, level: Level, message: &str) {
        self.count_call();
        self.logs.push((level, message.to_owned()));
    }

    fn explain(&mut self, reference: &str, reason: &str) {
        self.count_call();
        self.reasons.insert(reference.to_owned(), reason.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, run};
    use crate::{Failure, Policy, Timestamp};

    fn sample() -> FakeCache {
        FakeCache::new([
            FakeImage::new("a:1").created("3d").layer("base", "100B").layer("a", "10B").metadata_bytes(1),
            FakeImage::new("b:1").created("2d").layer("base", "100B").layer("b", "20B").metadata_bytes(2),
            FakeImage::new("c:1").created("1d").layer("c", "40B").metadata_bytes(4).manifest("c"),
            FakeImage::new("c:2").created("0s").manifest("c"),
        ])
    }

    /// What was removed is no longer listed, and bytes are what a further removal frees.
    #[test]
    fn staging() {
        let mut cache = sample();
        assert_eq!(cache.reclaimable_bytes(&["a:1"]), Ok(11));
        assert_eq!(cache.reclaimable_bytes(&["a:1", "b:1", "b:1"]), Ok(133));
        assert_eq!(cache.reclaimable_bytes(&["c:1"]), Ok(0));
        assert_eq!(cache.reclaimable_bytes(&["c:1", "c:2"]), Ok(44));
        cache.remove("a:1", false).unwrap();
        assert_eq!(cache.get("a:1"), Err(Error::ImageNotFound("a:1".into())));
        assert_eq!(cache.reclaimable_bytes(&["b:1"]), Ok(122));
        assert_eq!(cache.get_usage("b:1").unwrap().shared_bytes, 0);
        let usage = cache.get_usage("c:2").unwrap();
        assert_eq!((usage.unique_bytes, usage.shared_bytes), (0, 44));
        assert_eq!(cache.staged(), ["a:1"]);
    }

    /// What is in use, pinned or not granted is not removed; with force, an image in use loses its name alone.
    #[test]
    fn refusals() {
        let mut cache = FakeCache::new([
            FakeImage::new("used:1").manifest("m").sandbox("web").layer("l", "1B"),
            FakeImage::new("used:2").manifest("m"),
            FakeImage::new("pinned:1").pinned(),
            FakeImage::new("other:1").refused(Right::Remove),
        ]);
        assert!(
            matches!(cache.remove("used:2", false), Err(Error::ImageInUse(users)) if users.sandboxes == ["web"])
        );
        assert!(
            matches!(cache.remove("pinned:1", true), Err(Error::Denied(d)) if d.right == Right::Protected)
        );
        assert!(matches!(cache.remove("other:1", true), Err(Error::Denied(d)) if d.right == Right::Remove));
        assert_eq!(
            cache.prune().unwrap(),
            ImagePruneReport { bytes_reclaimed: Some(0), ..Default::default() }
        );
        cache.remove("used:1", true).unwrap();
        assert_eq!(cache.reclaimable_bytes(&["used:2"]), Ok(0));
    }

    /// Pages follow each other without gap or overlap, in the order asked for.
    #[test]
    fn pages() {
        let cache = sample();
        let filter = ImageFilter { order: Order::CreatedOldestFirst, limit: Some(3), ..Default::default() };
        let names = |filter: &ImageFilter| -> Vec<String> {
            cache.select(filter).unwrap().into_iter().map(|handle| handle.reference).collect()
        };
        assert_eq!(names(&filter), ["a:1", "b:1", "c:1"]);
        assert_eq!(names(&ImageFilter { after: Some("c:1".into()), ..filter.clone() }), ["c:2"]);
        assert!(names(&ImageFilter { after: Some("c:2".into()), ..filter }).is_empty());
        let created_before = NOW.checked_sub("1d".parse().unwrap());
        let pattern = Some("docker.io/library/*:1".into());
        let filter = ImageFilter { reference: pattern, created_before, ..Default::default() };
        assert_eq!(names(&filter), ["b:1", "a:1"]);
        assert_eq!(cache.images().unwrap().len(), 4);
    }

    /// A prune takes all that nothing uses, and says what it frees.
    #[test]
    fn prune() {
        let mut cache = sample();
        let report = cache.prune().unwrap();
        assert_eq!(report.bytes_reclaimed, Some(177));
        assert_eq!((report.image_refs_removed, report.manifests_removed, report.layers_removed), (4, 3, 4));
        assert!(cache.list().unwrap().is_empty());
    }

    /// After an error nothing is staged.
    #[test]
    fn an_error_drops_everything() {
        struct Fails;
        impl Policy for Fails {
            const NAME: &'static str = "fails";
            const VERSION: &'static str = "1.0.0";
            const SUMMARY: &'static str = "Removes everything and fails.";
            const CONFIG_SCHEMA: &'static str = "{}";
            type Config = std::collections::BTreeMap<String, u8>;
            fn evaluate(_: Self::Config, _: Timestamp, cache: &mut impl Cache) -> Result<(), Failure> {
                cache.prune()?;
                Err(Failure::new("not today"))
            }
        }
        let mut cache = sample();
        assert_eq!(run::<Fails>("{}", &mut cache), Err("not today".into()));
        assert_eq!(cache.list().unwrap().len(), 4);
        assert!(cache.staged().is_empty());
    }
}
