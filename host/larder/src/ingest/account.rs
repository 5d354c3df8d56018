//! The share of its limits that the layers of a load or pull have used. See [`limits`](super::limits) for what counts.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::error::IngestProblem;
use super::limits::{IngestLimits, LimitKey};
use super::progress::Meter;

/// The use of all layers of a load or pull.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    bytes: AtomicU64,
    /// The bytes beyond the ratio: those that were written, and all of them.
    written_beyond: AtomicU64,
    beyond: AtomicU64,
    /// The layers that are being converted.
    running: AtomicUsize,
    /// The memory that they hold, in bytes.
    entries: AtomicU64,
    metadata_bytes: AtomicU64,
}

/// The use of one layer, within those of its call. Dropping it gives back what it holds in memory.
pub(crate) struct Account<'a> {
    limits: &'a IngestLimits,
    spent: &'a Spent,
    /// Counts the compressed bytes of the layer.
    stored: &'a Meter,
    idle_processors: usize,
    bytes: Cell<u64>,
    written: Cell<u64>,
    beyond: Cell<u64>,
    written_beyond: Cell<u64>,
    entries: Cell<u64>,
    metadata_bytes: Cell<u64>,
}

impl<'a> Account<'a> {
    pub(crate) fn new(limits: &'a IngestLimits, spent: &'a Spent, stored: &'a Meter) -> Self {
        let [bytes, written, beyond, written_beyond, entries, metadata_bytes] = [const { Cell::new(0) }; 6];
        let running = spent.running.fetch_add(1, Ordering::Relaxed) + 1;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let idle_processors = (processors / running).saturating_sub(1);
        Self {
            limits,
            spent,
            stored,
            idle_processors,
            bytes,
            written,
            beyond,
            written_beyond,
            entries,
            metadata_bytes,
        }
    }

    /// Returns the number of processors that the layer had to itself when it began, besides the one that it is converted
    /// on.
    pub(crate) fn idle_processors(&self) -> usize {
        self.idle_processors
    }

    /// Counts bytes of the layer: decompressed ones, or holes.
    pub(crate) fn has(&self, more: u64) -> Result<(), IngestProblem> {
        let bytes = self.bytes.get().saturating_add(more);
        self.check(bytes, LimitKey::LayerBytes)?;
        self.check(set(&self.bytes, bytes, &self.spent.bytes), LimitKey::CallBytes)?;
        let beyond = self.beyond_ratio(bytes);
        self.check(set(&self.beyond, beyond, &self.spent.beyond), LimitKey::RatioFromZeros)
    }

    /// Counts bytes that are written to the disk.
    pub(crate) fn writes(&self, more: u64) -> Result<(), IngestProblem> {
        self.written.set(self.written.get().saturating_add(more));
        let beyond = self.beyond_ratio(self.written.get());
        let all = set(&self.written_beyond, beyond, &self.spent.written_beyond);
        self.check(all, LimitKey::RatioFromBytes)
    }

    /// Sets the number of entries and of the bytes of their names and attributes, which are in memory.
    pub(crate) fn holds(&self, entries: u64, metadata_bytes: u64) -> Result<(), IngestProblem> {
        self.check(entries, LimitKey::LayerEntries)?;
        self.check(metadata_bytes, LimitKey::LayerMetadataBytes)?;
        self.check(set(&self.entries, entries, &self.spent.entries), LimitKey::ImageEntries)?;
        let all = set(&self.metadata_bytes, metadata_bytes, &self.spent.metadata_bytes);
        self.check(all, LimitKey::ImageMetadataBytes)
    }

    fn beyond_ratio(&self, bytes: u64) -> u64 {
        self.limits.beyond_ratio(bytes, self.stored.done())
    }

    fn check(&self, count: u64, key: LimitKey) -> Result<(), IngestProblem> {
        check_limit(count, self.limits, key)
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        self.spent.running.fetch_sub(1, Ordering::Relaxed);
        set(&self.entries, 0, &self.spent.entries);
        set(&self.metadata_bytes, 0, &self.spent.metadata_bytes);
    }
}

/// Sets the part of one layer in a sum, and returns the sum.
fn set(part: &Cell<u64>, value: u64, sum: &AtomicU64) -> u64 {
    let change = value.wrapping_sub(part.replace(value));
    sum.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
}

/// Refuses a count above its limit.
pub(crate) fn check_limit(count: u64, limits: &IngestLimits, key: LimitKey) -> Result<(), IngestProblem> {
    if count > limits.get(key) { Err(IngestProblem::limit(limits, key)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::progress::LayerStep;
    use crate::reference::Digest;

    fn problem(result: Result<(), IngestProblem>) -> Option<LimitKey> {
        match result {
            Ok(()) => None,
            Err(IngestProblem::Limit { key, .. }) => Some(key),
            Err(other) => panic!("{other}"),
        }
    }

    /// What layers have beyond the ratio is counted for all layers of a call together, and zeros have an allowance of their
    /// own. Bytes that are read later allow more.
    #[test]
    fn the_ratio_is_that_of_a_call() {
        let mut limits = IngestLimits::default();
        (limits.ratio, limits.ratio_from_bytes, limits.ratio_from_zeros) = (10, 100, 1000);
        let spent = Spent::default();
        let meter = || Meter::new(None, &Digest::of(b""), LayerStep::Convert, 0);
        let (first, second) = (meter(), meter());
        let (one, two) = (Account::new(&limits, &spent, &first), Account::new(&limits, &spent, &second));
        first.add(10);
        assert_eq!(problem(one.writes(180)), None);
        assert_eq!(problem(two.writes(21)), Some(LimitKey::RatioFromBytes));
        first.add(1);
        assert_eq!(problem(one.writes(0)), None);
        assert_eq!(problem(two.writes(9)), None);
        assert_eq!(problem(one.has(110 + 600)), None);
        assert_eq!(problem(two.has(401)), Some(LimitKey::RatioFromZeros));
    }

    /// What a layer holds in memory counts for as long as it is converted.
    #[test]
    fn memory_is_given_back() {
        let mut limits = IngestLimits::default();
        (limits.layer_entries, limits.image_entries) = (60, 100);
        let (spent, stored) = (Spent::default(), Meter::new(None, &Digest::of(b""), LayerStep::Convert, 0));
        let one = Account::new(&limits, &spent, &stored);
        assert_eq!(problem(one.holds(61, 0)), Some(LimitKey::LayerEntries));
        assert_eq!(problem(one.holds(60, 0)), None);
        assert_eq!(
            problem(Account::new(&limits, &spent, &stored).holds(41, 0)),
            Some(LimitKey::ImageEntries)
        );
        drop(one);
        assert_eq!(problem(Account::new(&limits, &spent, &stored).holds(60, 0)), None);
    }
}
