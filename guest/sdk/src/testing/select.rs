//! Filtering and ordering for `select`.

use std::cmp::Ordering;

use super::FakeImage;
use super::pattern::Pattern;
use crate::{ImageFilter, Order};

/// Tells whether an image meets every condition of a filter, whose pattern is this.
///
/// A condition on something that is not known is not met, but for `unused_since`: what was never used is unused since
/// any instant.
pub(super) fn meets(
    image: &FakeImage,
    in_use: bool,
    filter: &ImageFilter,
    pattern: Option<&Pattern>,
) -> bool {
    let handle = &image.handle;
    pattern.is_none_or(|pattern| pattern.matches(&handle.reference))
        && filter.unused_since.is_none_or(|since| handle.last_used_at.is_none_or(|used| used < since))
        && filter.arrived_before.is_none_or(|before| handle.arrived_at.is_some_and(|at| at < before))
        && filter.min_size_bytes.is_none_or(|bytes| handle.size_bytes.is_some_and(|size| size >= bytes))
        && filter.unused.is_none_or(|unused| unused != in_use)
}

/// Compares two images in an order. What is not known counts as the oldest and the smallest; equal images are compared by
/// reference.
pub(super) fn compare(order: Order, a: &FakeImage, b: &FakeImage) -> Ordering {
    let (x, y) = (&a.handle, &b.handle);
    let by_key = match order {
        Order::CreatedNewestFirst => y.created_at.cmp(&x.created_at),
        Order::CreatedOldestFirst => x.created_at.cmp(&y.created_at),
        Order::ArrivedNewestFirst => y.arrived_at.cmp(&x.arrived_at),
        Order::ArrivedOldestFirst => x.arrived_at.cmp(&y.arrived_at),
        Order::UsedNewestFirst => y.last_used_at.cmp(&x.last_used_at),
        Order::UsedOldestFirst => x.last_used_at.cmp(&y.last_used_at),
        Order::LargestFirst => y.size_bytes.cmp(&x.size_bytes),
        Order::SmallestFirst => x.size_bytes.cmp(&y.size_bytes),
    };
    by_key.then_with(|| x.reference.cmp(&y.reference))
}
