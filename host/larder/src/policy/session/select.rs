//! Selecting images: filtering, ordering and paging.
//!
//! Each order is total: images that are equal by its key follow each other by reference, so that a page can begin
//! after any image, also after one that the run has staged meanwhile. What is not known counts as the smallest: never
//! used is longest unused, an unknown time is the oldest, an unknown size the smallest. A condition on something that
//! is not known is not met, but for `unused-since`: what was never used is unused since any instant.
//!
//! An order is sorted when it is first asked for and kept: a page costs as many steps as it looks at images.

use std::cell::OnceCell;
use std::cmp::Reverse;

use chrono::{DateTime, Utc};

use super::images::{Image, Images};
use crate::pattern::ReferencePattern;

/// The most that one page has.
pub(crate) const PAGE: usize = 1024;

/// The order of a selection: by which key, and which end of it comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    CreatedNewest,
    CreatedOldest,
    ArrivedNewest,
    ArrivedOldest,
    UsedNewest,
    UsedOldest,
    Largest,
    Smallest,
}

/// A page as a policy asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// A reference pattern.
    pub(crate) reference: Option<String>,
    pub(crate) unused_since: Option<DateTime<Utc>>,
    pub(crate) arrived_before: Option<DateTime<Utc>>,
    pub(crate) min_size_bytes: Option<i64>,
    pub(crate) unused: Option<bool>,
    pub(crate) order: Order,
    /// The reference that the page begins behind.
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<u32>,
}

/// The conditions of a selection, each met or not given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    pub(crate) reference: Option<ReferencePattern>,
    pub(crate) unused_since: Option<DateTime<Utc>>,
    pub(crate) arrived_before: Option<DateTime<Utc>>,
    pub(crate) min_size_bytes: Option<i64>,
    pub(crate) unused: Option<bool>,
}

impl Conditions {
    /// Returns whether an image meets every condition.
    pub(crate) fn meets(&self, image: &Image) -> bool {
        let handle = &image.record.handle;
        let arrived_at = image.record.arrived_at;
        self.unused.is_none_or(|unused| image.facts.is_in_use != unused)
            && self.unused_since.is_none_or(|since| handle.last_used_at.is_none_or(|used| used < since))
            && self.arrived_before.is_none_or(|before| arrived_at.is_some_and(|arrived| arrived < before))
            && self.min_size_bytes.is_none_or(|min| handle.size_bytes.is_some_and(|size| size >= min))
            && self.reference.as_ref().is_none_or(|pattern| image.name().matches(pattern))
    }
}

/// The visible images in one order.
#[derive(Debug)]
struct Sorted {
    sequence: Vec<u32>,
    /// Of each image of the state, its place in the sequence; meaningless for hidden ones.
    place: Vec<u32>,
}

impl Sorted {
    fn new(images: &Images, order: Order) -> Self {
        let sequence = match order {
            Order::CreatedNewest => by(images, |image| Reverse(image.record.handle.created_at)),
            Order::CreatedOldest => by(images, |image| image.record.handle.created_at),
            Order::ArrivedNewest => by(images, |image| Reverse(image.record.arrived_at)),
            Order::ArrivedOldest => by(images, |image| image.record.arrived_at),
            Order::UsedNewest => by(images, |image| Reverse(image.record.handle.last_used_at)),
            Order::UsedOldest => by(images, |image| image.record.handle.last_used_at),
            Order::Largest => by(images, |image| Reverse(image.record.handle.size_bytes)),
            Order::Smallest => by(images, |image| image.record.handle.size_bytes),
        };
        let mut place = vec![0; images.len()];
        for (&index, position) in sequence.iter().zip(0..) {
            place[index as usize] = position;
        }
        Self { sequence, place }
    }
}

/// Returns the visible images sorted by a key, those of the same key by their references.
fn by<K: Ord>(images: &Images, key: impl Fn(&Image) -> K) -> Vec<u32> {
    let mut keyed: Vec<(K, u32)> =
        images.visible().map(|(index, image)| (key(image), index as u32)).collect();
    let reference = |index: u32| images.get(index as usize).reference();
    keyed.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| reference(*x).cmp(reference(*y))));
    keyed.into_iter().map(|(_, index)| index).collect()
}

/// The orders that were asked for so far.
#[derive(Debug, Default)]
pub(crate) struct Orders([OnceCell<Sorted>; 8]);

impl Orders {
    /// Returns at most `limit` (and at most [`PAGE`]) images that the run can see and that meet the conditions, in this order,
    /// from behind the image `after`.
    pub(crate) fn page(
        &self,
        images: &Images,
        conditions: &Conditions,
        order: Order,
        after: Option<usize>,
        limit: Option<u32>,
    ) -> Vec<usize> {
        let sorted = self.0[order as usize].get_or_init(|| Sorted::new(images, order));
        let start = after.map_or(0, |after| sorted.place[after] as usize + 1);
        let limit = limit.map_or(PAGE, |limit| (limit as usize).clamp(1, PAGE));
        sorted.sequence[start..]
            .iter()
            .map(|&index| index as usize)
            .filter(|&index| images.get(index).staged.is_none() && conditions.meets(images.get(index)))
            .take(limit)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::grant::{Grant, GrantDocument};
    use crate::policy::session::access::Access;
    use crate::policy::session::images::Staged;
    use crate::snapshot::{MemoryCache, MemoryImage};

    const ORDERS: [Order; 8] = [
        Order::CreatedNewest,
        Order::CreatedOldest,
        Order::ArrivedNewest,
        Order::ArrivedOldest,
        Order::UsedNewest,
        Order::UsedOldest,
        Order::Largest,
        Order::Smallest,
    ];

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn cache() -> impl Strategy<Value = Vec<MemoryImage>> {
        let few = || proptest::option::of(0..4_i64);
        let image = (any::<bool>(), few(), few(), few(), few(), any::<bool>());
        proptest::collection::vec(image, 0..40).prop_map(|images| {
            let image = |(index, (acme, created, arrived, used, size, in_use)): (usize, _)| {
                let registry = if acme { "docker.io/acme" } else { "docker.io/other" };
                let mut image = MemoryImage::new(format!("{registry}/app:{index}"));
                image.created_at = Option::map(created, at);
                image.arrived_at = Option::map(arrived, at);
                image.last_used_at = Option::map(used, at);
                image.size_bytes = size;
                if in_use {
                    image.sandboxes.push("box".to_owned());
                }
                image
            };
            images.into_iter().enumerate().map(image).collect()
        })
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let few = || proptest::option::of(0..4_i64);
        let pattern = proptest::option::of(prop_oneof![
            Just("docker.io/acme/**"),
            Just("**:1*"),
            Just("docker.io/acme/*")
        ]);
        (pattern, few(), few(), few(), any::<Option<bool>>()).prop_map(
            |(pattern, since, before, min, unused)| Conditions {
                reference: pattern.map(|pattern| pattern.parse().expect("a pattern")),
                unused_since: since.map(at),
                arrived_before: before.map(at),
                min_size_bytes: min,
                unused,
            },
        )
    }

    fn arrival(image: &MemoryImage) -> Option<DateTime<Utc>> {
        image.created_at.max(image.arrived_at)
    }

    /// What the contract says of one image, in as few words.
    fn naive(conditions: &Conditions, image: &MemoryImage) -> bool {
        let Conditions { reference, unused_since, arrived_before, min_size_bytes, unused } = conditions;
        let name = image.reference.parse().expect("a reference");
        reference.as_ref().is_none_or(|pattern| pattern.matches(&name))
            && unused_since.is_none_or(|since| image.last_used_at.is_none_or(|used| used < since))
            && arrived_before.is_none_or(|before| arrival(image).is_some_and(|arrived| arrived < before))
            && min_size_bytes.is_none_or(|min| image.size_bytes.is_some_and(|size| size >= min))
            && unused.is_none_or(|unused| image.sandboxes.is_empty() == unused)
    }

    proptest! {
        /// Pages of any size, put together, are the filtered and sorted list, each image once, also when every image
        /// that was shown is staged before the next page is asked for.
        #[test]
        fn pages_make_the_whole_list(
            cache in cache(), conditions in conditions(), order in 0..8_usize, limit in 1..7_u32, stage: bool,
        ) {
            let order = ORDERS[order];
            let access = Access::new(GrantDocument::default(), at(0));
            let states = MemoryCache::new(cache.clone()).states();
            let mut images = Images::new(states, &access);
            let orders = Orders::default();
            let mut shown: Vec<String> = Vec::new();
            let mut after = None;
            loop {
                let page = orders.page(&images, &conditions, order, after, Some(limit));
                prop_assert!(page.len() <= limit as usize);
                let Some(&last) = page.last() else { break };
                shown.extend(page.iter().map(|&index| images.get(index).reference().to_owned()));
                after = Some(last);
                if stage {
                    page.iter().for_each(|&i| images.stage(i, Staged { force: false, by_prune: false, position: 0 }));
                }
            }
            let mut expected: Vec<_> = cache.iter().filter(|image| naive(&conditions, image)).collect();
            expected.sort_by(|a, b| {
                let by_key = match order {
                    Order::CreatedNewest => b.created_at.cmp(&a.created_at),
                    Order::CreatedOldest => a.created_at.cmp(&b.created_at),
                    Order::ArrivedNewest => arrival(b).cmp(&arrival(a)),
                    Order::ArrivedOldest => arrival(a).cmp(&arrival(b)),
                    Order::UsedNewest => b.last_used_at.cmp(&a.last_used_at),
                    Order::UsedOldest => a.last_used_at.cmp(&b.last_used_at),
                    Order::Largest => b.size_bytes.cmp(&a.size_bytes),
                    Order::Smallest => a.size_bytes.cmp(&b.size_bytes),
                };
                by_key.then_with(|| a.reference.cmp(&b.reference))
            });
            let expected: Vec<_> = expected.into_iter().map(|image| image.reference.clone()).collect();
            prop_assert_eq!(shown, expected);
        }
    }

    /// A hidden image is in no page.
    #[test]
    fn hidden_images_are_in_no_page() {
        let grant = Grant::default().with_read(vec!["docker.io/acme/**".parse().expect("a pattern")]);
        let access = Access::new(GrantDocument::default().with_grant(grant), at(0));
        let cache = ["docker.io/other/a:1", "docker.io/acme/a:1"].map(MemoryImage::new);
        let images = Images::new(MemoryCache::new(cache).states(), &access);
        for order in ORDERS {
            let page = Orders::default().page(&images, &Conditions::default(), order, None, None);
            let names: Vec<_> = page.iter().map(|&index| images.get(index).reference()).collect();
            assert_eq!(names, ["docker.io/acme/a:1"]);
        }
    }

    /// A page has at least one image while there is one, and at most as many as the host gives.
    #[test]
    fn a_page_is_never_empty_before_the_end() {
        let access = Access::new(GrantDocument::default(), at(0));
        let cache = (0..2000).map(|index| MemoryImage::new(format!("docker.io/acme/a:{index}")));
        let images = Images::new(MemoryCache::new(cache).states(), &access);
        let page = |limit| {
            Orders::default().page(&images, &Conditions::default(), Order::Largest, None, limit).len()
        };
        assert_eq!((page(Some(0)), page(Some(7)), page(Some(u32::MAX)), page(None)), (1, 7, PAGE, PAGE));
    }
}
