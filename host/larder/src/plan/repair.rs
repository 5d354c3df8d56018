//! The plan of a repair: files that nothing owns, as a verification named them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Plan;
use super::prune::uncollected;
use crate::artifacts::unowned::find_unowned;
use crate::backend::LocalBackend;
use crate::catalog::{blocking, owners};
use crate::error::MicrosandboxResult;
use crate::records::{ImagePruneReport, Maker};
use crate::store::Store;
use crate::store::verify::{FindingKind, RepairOutcome, VerifyReport};

impl LocalBackend {
    /// Returns what deleting the orphans of a verification would do now, as a plan to show and [apply](Self::apply).
    /// Orphans that are younger than an hour are not in it. Writes nothing.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn plan_repair(&self, report: &VerifyReport) -> MicrosandboxResult<Plan> {
        let orphans = report.findings.iter().filter(|finding| finding.kind == FindingKind::Orphan);
        let orphans: HashSet<PathBuf> = orphans.map(|finding| finding.path.clone()).collect();
        let store = Arc::clone(self.store());
        blocking("plan a repair", move || plan(&store, &orphans)).await
    }

    /// Returns a verification that says of each file that nothing owns whether it is gone by now.
    ///
    /// # Errors
    /// [`Interrupted`](crate::MicrosandboxError::Interrupted) where the runtime is shutting down.
    pub async fn note_repairs(&self, mut report: VerifyReport) -> MicrosandboxResult<VerifyReport> {
        let cache = self.cache_dir().to_owned();
        let there = move |path: &Path| cache.join(path).symlink_metadata().is_ok();
        blocking("look at what was repaired", move || {
            for finding in report.findings.iter_mut().filter(|finding| !finding.is_damage()) {
                let outcome = if there(&finding.path) { RepairOutcome::Left } else { RepairOutcome::Removed };
                finding.repair = Some(outcome);
            }
            Ok(report)
        })
        .await
    }
}

fn plan(store: &Arc<Store>, orphans: &HashSet<PathBuf>) -> MicrosandboxResult<Plan> {
    let now = store.now();
    let reader = store.catalog().reader()?;
    let owned = owners::entries(&reader).map_err(store.catalog().db("find out what owns files"))?;
    let custody = store.keeper(&reader)?.custody();
    let mut found = custody.judge(find_unowned(store.cache(), &owned, &HashSet::new(), now));
    found.old.retain(|file| orphans.contains(&file.path));
    found.left.retain(|file| orphans.contains(&file.path));
    let mut plan = Plan::new(Maker::Repair, now, Vec::new(), found.old, ImagePruneReport::default());
    plan.uncollected = uncollected(&found.left, custody);
    Ok(plan.for_home(store.identity(&reader)?))
}
