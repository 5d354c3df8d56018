//! The plan of a prune: everything that nothing uses, and every file that nothing owns.
//!
//! One snapshot decides it. What goes, and what that frees, is read off the snapshot's cost graph, in as many steps as
//! the graph has files.

use std::collections::HashSet;
use std::sync::Arc;

use super::count;
use super::document::{Decision, Plan, PlanEntry, Uncollected, UnreachedRow};
use crate::artifacts::Room;
use crate::artifacts::marker::Custody;
use crate::artifacts::unowned::{Unowned, UnownedKind, find_unowned};
use crate::backend::LocalBackend;
use crate::catalog::{blocking, owners};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImagePruneReport;
use crate::reference::Digest;
use crate::snapshot::{CacheSnapshot as _, ImageRecord, Removal};
use crate::store::Store;
use crate::store::snapshot::HomeSnapshot;

impl LocalBackend {
    /// Returns what [`Image::prune_local`](crate::Image::prune_local) would do now, as a plan to show and
    /// [apply](Self::apply). Writes nothing.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn plan_prune(&self) -> MicrosandboxResult<Plan> {
        let store = Arc::clone(self.store());
        let plan = move || plan(&mut HomeSnapshot::open(&store)?, &store).map(|planned| planned.plan);
        blocking("plan a prune", plan).await
    }
}

/// The plan of a prune, and what it was decided on.
pub(super) struct PlannedPrune {
    pub(super) plan: Plan,
    pub(super) images: Vec<ImageRecord>,
}

/// Plans a prune of what a snapshot of this store shows.
pub(super) fn plan(snapshot: &mut HomeSnapshot, store: &Store) -> MicrosandboxResult<PlannedPrune> {
    let now = store.now();
    let images = snapshot.images()?;
    let costs = snapshot.home_costs()?;
    let mut removal = Removal::new(Arc::new(costs.graph));
    let entries: Vec<PlanEntry> = images
        .iter()
        .enumerate()
        .map(|(index, image)| match reason_to_keep(image) {
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
    let keeper = store.keeper(snapshot.connection())?;
    let unowned = keeper.judge(find_unowned(store.cache(), &owned, &going, now));
    let uncollected = uncollected(&unowned, keeper.custody());

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
    let mut plan = Plan::new(now, entries, unowned.old, report).with_unreached(unreached);
    plan.uncollected = uncollected;
    Ok(PlannedPrune { plan: plan.for_home(keeper.home().clone()), images })
}

/// What is left of what nothing owns, since the cache may be another home's as well.
fn uncollected(found: &Unowned, custody: Custody) -> Option<Uncollected> {
    let Custody::NotOurs(reason) = custody else { return None };
    let left = || found.left.iter().filter(|file| file.kind == UnownedKind::NotOurs);
    let bytes = left().map(|file| file.bytes).fold(0, u64::saturating_add);
    let files = u64::try_from(left().count()).unwrap_or(u64::MAX);
    (files > 0).then_some(Uncollected { bytes, files, reason })
}

fn reason_to_keep(image: &ImageRecord) -> Option<String> {
    if image.users.is_empty() {
        image.pinned.then(|| "pinned".to_owned())
    } else {
        Some(format!("used by {}", image.users))
    }
}
