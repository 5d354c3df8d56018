//! What holds the used bytes of a file system, by cause, so that an unmet goal can be explained.
//!
//! Every image that is left has one cause. Bytes are those that would become free if the images of a cause went after those
//! of all weaker causes, so what images of two causes share counts for the stronger one, and no byte counts twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::MicrosandboxResult;
use crate::plan::guard::{self, Candidate, Protection};
use crate::policy::{GrantDocument, Guard};
use crate::records::{Held, HeldBy};
use crate::reference::Reference;
use crate::snapshot::{CacheSnapshot as _, ImageRecord, Removal};
use crate::store::Store;
use crate::store::snapshot::HomeSnapshot;

/// What is known of a run when what holds the rest is asked for.
pub(super) struct Holding {
    /// The grants of the job's steps.
    pub(super) grants: Vec<GrantDocument>,
    /// What the job file keeps.
    pub(super) guard: Guard,
    /// References that a live operation held.
    pub(super) leased: HashSet<String>,
    /// References that plans remove which were not applied.
    pub(super) gone: HashSet<String>,
    /// The bytes of files that such plans delete besides.
    pub(super) gone_files: u64,
    /// The used bytes of the file system.
    pub(super) used_bytes: u64,
}

/// The causes of images, the weakest first.
const WEAKEST_FIRST: [HeldBy; 7] = [
    HeldBy::NotProposed,
    HeldBy::Denied,
    HeldBy::Young,
    HeldBy::Guarded,
    HeldBy::Pinned,
    HeldBy::Leased,
    HeldBy::InUse,
];

/// Finds what holds the used bytes. They add up to them: the largest first.
pub(super) fn find(store: &Arc<Store>, holding: &Holding) -> MicrosandboxResult<Vec<Held>> {
    let guard = guard::of_home(store)?.and(&holding.guard).for_policy();
    let mut snapshot = HomeSnapshot::open(store)?;
    let (images, now) = (snapshot.images()?, store.now());
    let costs = snapshot.home_costs()?;
    let cache_bytes = snapshot.disk()?.cache_bytes;
    let graph = Arc::new(costs.graph);
    let all_bytes = graph.bytes();
    let mut removal = Removal::new(graph);

    let causes = Causes { holding, guard: &guard, now }.of(&images);
    let in_plans = causes.iter().enumerate().filter(|(_, cause)| cause.is_none());
    let gone: u64 = in_plans.map(|(index, _)| removal.remove(index).bytes).sum();
    let unreached: u64 = costs.unreached.iter().map(|row| removal.remove(row.index).bytes).sum();
    let mut held = Vec::new();
    for by in WEAKEST_FIRST {
        let (mut bytes, mut count) = (0, 0);
        for (index, _) in causes.iter().enumerate().filter(|(_, cause)| **cause == Some(by)) {
            bytes += removal.remove(index).bytes;
            count += 1;
        }
        if by == HeldBy::InUse {
            // What is held stays in the graph, whatever is removed from it.
            bytes += all_bytes.saturating_sub(removal.freed().bytes);
        }
        held.push(Held { by, bytes, images: count });
    }
    let unowned = cache_bytes.saturating_sub(all_bytes).saturating_add(unreached);
    let gone = gone.saturating_add(holding.gone_files);
    held.push(Held { by: HeldBy::Unowned, bytes: unowned.saturating_sub(holding.gone_files), images: 0 });
    Ok(adding_up(held, holding.used_bytes.saturating_sub(gone)))
}

/// Adds what is elsewhere, so that all add up to the used bytes. Files may have come and gone while they were counted.
fn adding_up(held: Vec<Held>, used_bytes: u64) -> Vec<Held> {
    let mut rest = used_bytes;
    let mut all: Vec<Held> = held
        .into_iter()
        .map(|held| {
            let bytes = held.bytes.min(rest);
            rest -= bytes;
            Held { bytes, ..held }
        })
        .collect();
    all.push(Held { by: HeldBy::Elsewhere, bytes: rest, images: 0 });
    all.retain(|held| held.bytes > 0 || held.images > 0);
    all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.by.cmp(&b.by)));
    all
}

/// Finds the cause of each image.
struct Causes<'a> {
    holding: &'a Holding,
    guard: &'a Guard,
    now: chrono::DateTime<chrono::Utc>,
}

impl Causes<'_> {
    /// Returns the cause of each image; none of one that plans remove.
    fn of(&self, images: &[ImageRecord]) -> Vec<Option<HeldBy>> {
        let references: Vec<Option<Reference>> =
            images.iter().map(|image| image.handle.reference().parse().ok()).collect();
        let mut left: HashMap<&str, u32> = HashMap::new();
        for (image, reference) in images.iter().zip(&references) {
            let is_left = !self.holding.gone.contains(image.handle.reference());
            if let Some(reference) = reference.as_ref().filter(|_| is_left) {
                *left.entry(reference.repository()).or_default() += 1;
            }
        }
        let cause = |(image, reference): (&ImageRecord, &Option<Reference>)| {
            let left = reference.as_ref().and_then(|reference| left.get(reference.repository()).copied());
            self.cause(image, reference.as_ref(), left)
        };
        images.iter().zip(&references).map(cause).collect()
    }

    fn cause(&self, image: &ImageRecord, reference: Option<&Reference>, left: Option<u32>) -> Option<HeldBy> {
        let text = image.handle.reference();
        if self.holding.gone.contains(text) {
            return None;
        }
        if !image.users.is_empty() {
            return Some(HeldBy::InUse);
        }
        if self.holding.leased.contains(text) {
            return Some(HeldBy::Leased);
        }
        if image.pinned {
            return Some(HeldBy::Pinned);
        }
        let candidate = Candidate {
            text,
            reference,
            arrived_at: image.arrived_at,
            last_used_at: image.handle.last_used_at(),
            left_in_repository: left,
        };
        match self.guard.protection(&candidate, self.now) {
            Some(Protection::Young(_) | Protection::OfUnknownAge(_)) => return Some(HeldBy::Young),
            Some(Protection::Named(_) | Protection::OneOfTheLast(_)) => return Some(HeldBy::Guarded),
            None => {}
        }
        let may = |document: &GrantDocument| {
            let matches = |pattern: &crate::pattern::ReferencePattern| {
                pattern.is_everything() || pattern.matches_text(text, reference)
            };
            document.grant.read.iter().any(matches) && document.grant.remove.iter().any(matches)
        };
        Some(if self.holding.grants.iter().any(may) { HeldBy::NotProposed } else { HeldBy::Denied })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes add up to the used bytes, whatever was counted.
    #[test]
    fn always_adds_up() {
        let held = |by, bytes| Held { by, bytes, images: 0 };
        let counted = vec![held(HeldBy::InUse, 70), held(HeldBy::Unowned, 20)];
        let sums = |used| {
            adding_up(counted.clone(), used).iter().map(|held| (held.by, held.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(sums(100), [(HeldBy::InUse, 70), (HeldBy::Unowned, 20), (HeldBy::Elsewhere, 10)]);
        assert_eq!(sums(80), [(HeldBy::InUse, 70), (HeldBy::Unowned, 10)]);
        assert_eq!(sums(60), [(HeldBy::InUse, 60)]);
        assert_eq!(sums(0), []);
    }
}
