//! The plan of a prune: everything that nothing uses and no guard keeps, and every file that nothing owns.
//!
//! One snapshot decides it. What goes, and what that frees, is read off the snapshot's cost graph, in as many steps as
//! the graph has files.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::count;
use super::document::{Decision, Plan, PlanEntry, Uncollected, UnreachedRow};
use super::guard::{self, Candidate};
use super::unmatched::{self, UnmatchedPattern};
use crate::artifacts::Room;
use crate::artifacts::marker::Custody;
use crate::artifacts::unowned::{UnownedFile, UnownedKind, find_unowned};
use crate::backend::LocalBackend;
use crate::catalog::{blocking, owners};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{Guard, ImagePruneReport, Maker};
use crate::reference::{Digest, Reference};
use crate::snapshot::{CacheSnapshot as _, ImageRecord, Removal};
use crate::store::Store;
use crate::store::snapshot::HomeSnapshot;

impl LocalBackend {
    /// Returns what [`Image::prune_local`](crate::Image::prune_local) would do now, as a plan to show and
    /// [apply](Self::apply). Writes nothing.
    ///
    /// What the guard of this home keeps ([`guard`](Self::guard)) stays, with the reason.
    ///
    /// # Errors
    /// Fails if the home or its guard cannot be read. [`CacheMissing`](crate::backend::HomeProblem::CacheMissing) if its
    /// cache is not there.
    pub async fn plan_prune(&self) -> MicrosandboxResult<Plan> {
        let store = Arc::clone(self.store());
        let plan = move || {
            let guard = guard::of_home(&store)?;
            plan(&mut HomeSnapshot::open(&store)?, &store, guard, Scope::All).map(|planned| planned.plan)
        };
        blocking("plan a prune", plan).await
    }

    /// Returns what a prune would do now, without the images: manifests and layers that no reference reaches, and files that
    /// nothing owns. Writes nothing.
    ///
    /// # Errors
    /// As [`plan_prune`](Self::plan_prune).
    pub async fn plan_leftovers(&self) -> MicrosandboxResult<Plan> {
        let store = Arc::clone(self.store());
        let plan = move || {
            let mut snapshot = HomeSnapshot::open(&store)?;
            plan(&mut snapshot, &store, Guard::default(), Scope::Leftovers).map(|planned| planned.plan)
        };
        blocking("plan what nothing owns", plan).await
    }
}

/// The plan of a prune, and what it was decided on.
pub(super) struct PlannedPrune {
    pub(super) plan: Plan,
    pub(super) images: Vec<ImageRecord>,
}

/// What a prune is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// What no image has.
    Leftovers,
}

/// Plans a prune of what a snapshot of this store shows, under a guard.
pub(super) fn plan(
    snapshot: &mut HomeSnapshot,
    store: &Store,
    guard: Guard,
    scope: Scope,
) -> MicrosandboxResult<PlannedPrune> {
    store.check_cache(snapshot.connection())?;
    let now = store.now();
    let images = match scope {
        Scope::All => snapshot.images()?,
        Scope::Leftovers => Vec::new(),
    };
    let costs = snapshot.home_costs()?;
    let mut removal = Removal::new(Arc::new(costs.graph));
    let kept = Kept::find(&images, &guard, now);
    let entries: Vec<PlanEntry> = images
        .iter()
        .zip(kept.reasons)
        .enumerate()
        .map(|(index, (image, reason))| match reason {
            Some(reason) => PlanEntry::keep(&image.handle, reason),
            None => PlanEntry::remove(&image.handle, "nothing uses it", removal.remove(index).bytes, false),
        })
        .collect();
    let mut unreached = Vec::with_capacity(costs.unreached.len());
    for row in costs.unreached {
        let bytes = removal.remove(row.index).bytes;
        unreached.push(UnreachedRow { kind: row.kind, digest: row.digest, bytes });
    }

    let owned = owners::entries(snapshot.connection());
    let owned = owned.map_err(MicrosandboxError::db("find out what owns files"))?;
    let going: HashSet<Digest> = costs
        .manifests
        .into_iter()
        .filter(|row| removal.took(row.node))
        .filter_map(|row| row.digest.known().cloned())
        .collect();
    // Asked once: a marker that cannot be read now may be readable in a moment.
    let custody = store.keeper(snapshot.connection())?.custody();
    let unowned = custody.judge(find_unowned(store.cache(), &owned, &going, now));
    let uncollected = uncollected(&unowned.left, custody);

    let freed = removal.freed();
    let orphans =
        |room| unowned.old.iter().filter(|file| file.entry().is_some_and(|entry| entry.room == room)).count();
    let removed = entries.iter().filter(|entry| entry.decision == Decision::Remove).count();
    let report = ImagePruneReport {
        image_refs_removed: count(removed),
        manifests_removed: freed.manifests,
        layers_removed: freed.layers,
        fsmeta_removed: freed.fsmeta + count(orphans(Room::Fsmeta)),
        vmdk_removed: freed.vmdk + count(orphans(Room::Vmdk)),
        ..ImagePruneReport::default()
    };
    let mut plan = Plan::new(Maker::Prune, now, entries, unowned.old, report).with_unreached(unreached);
    plan.uncollected = uncollected;
    plan.guard = (guard != Guard::default()).then_some(guard);
    plan.unmatched = kept.unmatched;
    Ok(PlannedPrune { plan: plan.for_home(store.identity(snapshot.connection())?), images })
}

/// What is left of what nothing owns, since the cache may be another home's as well.
pub(super) fn uncollected(left: &[UnownedFile], custody: Custody) -> Option<Uncollected> {
    let Custody::NotOurs(reason) = custody else { return None };
    let left = || left.iter().filter(|file| file.kind == UnownedKind::NotOurs);
    let bytes = left().map(|file| file.bytes).fold(0, u64::saturating_add);
    let files = u64::try_from(left().count()).unwrap_or(u64::MAX);
    (files > 0).then_some(Uncollected { bytes, files, reason })
}

/// Why images stay, and what that did not depend on.
struct Kept {
    /// Of each image; absent for one that goes.
    reasons: Vec<Option<String>>,
    unmatched: Vec<UnmatchedPattern>,
}

impl Kept {
    /// Finds out what stays of these images.
    fn find(images: &[ImageRecord], guard: &Guard, now: DateTime<Utc>) -> Self {
        let mut reasons: Vec<Option<String>> = images.iter().map(reason_to_keep).collect();
        if guard.is_empty() {
            return Self { reasons, unmatched: Vec::new() };
        }
        let references: Vec<Option<Reference>> =
            images.iter().map(|image| image.handle.reference().parse().ok()).collect();
        let mut left: HashMap<&str, u32> = HashMap::new();
        for reference in references.iter().flatten() {
            *left.entry(reference.repository()).or_default() += 1;
        }
        for place in guard::oldest_first(images.iter().map(|image| image.arrived_at)) {
            let (image, reference, reason) = (&images[place], &references[place], &mut reasons[place]);
            if reason.is_some() {
                continue;
            }
            let left = reference.as_ref().and_then(|reference| left.get_mut(reference.repository()));
            let candidate = Candidate {
                text: image.handle.reference(),
                reference: reference.as_ref(),
                arrived_at: image.arrived_at,
                last_used_at: image.handle.last_used_at(),
                left_in_repository: left.as_deref().copied(),
            };
            match guard.protection(&candidate, now) {
                Some(protection) => *reason = Some(format!("kept by the guard: {protection}")),
                None => left.into_iter().for_each(|left| *left -= 1),
            }
        }
        let names = images.iter().zip(&references);
        let names: Vec<_> =
            names.map(|(image, reference)| (image.handle.reference(), reference.as_ref())).collect();
        Self { reasons, unmatched: unmatched::of_guard(guard, &names) }
    }
}

fn reason_to_keep(image: &ImageRecord) -> Option<String> {
    if image.users.is_empty() {
        image.pinned.then(|| "pinned".to_owned())
    } else {
        Some(format!("used by {}", image.users))
    }
}
