//! Applying a plan: it is checked again, image by image, and what no longer holds is spared.
//!
//! A plan may be old, and others may have worked on the cache since. Of each image that is to go, under its lease
//! and in the transaction that removes it: it names the manifest that it named, it was not used since, nothing has
//! come to use it (unless the plan forces it), nobody has pinned it (unless an operator forces it), and neither a guard nor
//! the plan's own grant keeps it ([`recheck`](super::recheck)). One that is gone already needs nothing. Nothing is removed
//! that is not in the plan, and a plan for another home, or one that contradicts itself, is refused.
//!
//! The run goes on record in the home before anything is removed, each removal with the rows that it removes, and the end of
//! the run when all is done or when something ended it half-way ([`record`]).

use std::collections::HashSet;
use std::future::{pending, poll_fn};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::application::Application;
use super::document::Plan;
use super::recheck::{Chosen, Recheck};
use super::record::{self, Begun};
use super::report::{Completion, PlanReport};
use crate::backend::LocalBackend;
use crate::catalog::CancelOnDrop;
use crate::catalog::remove::{self, ExpectedRef};
use crate::catalog::roots;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImagePruneReport, Maker, RecoveredFiles, RunCost, UnreachedKind};
use crate::reference::RowDigest;
use crate::store::full_disk::FullDisk;
use crate::store::removal::{Ends, RemoveMode, Remover, Target, UnreachedRows};

/// What of a plan is left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanProgress {
    /// References that are to go and are gone already.
    pub gone: Vec<String>,
    /// How many images, rows and files that are to go are still there.
    pub left: usize,
    /// How many files earlier removals have left that were not finished, or are in progress: any change deletes them.
    pub unfinished: u64,
}

impl LocalBackend {
    /// Returns what of a plan is left to do. Writes nothing.
    ///
    /// # Errors
    /// [`PlanForAnotherHome`](MicrosandboxError::PlanForAnotherHome), or where the home cannot be read.
    pub async fn progress_of(&self, plan: &Plan) -> MicrosandboxResult<PlanProgress> {
        plan.check_home(&self.identity().await?)?;
        let wanted: Vec<String> = plan.removals().map(|entry| entry.reference.clone()).collect();
        let rows = UnreachedRows::from(plan);
        let files: Vec<PathBuf> = plan.collect.iter().map(|file| self.cache_dir().join(&file.path)).collect();
        let action = "look up what a plan removes";
        let store = Arc::clone(self.store());
        self.store()
            .read(action, move |connection| {
                let progress = progress(connection, wanted, &rows, &files);
                let progress = progress.map_err(MicrosandboxError::db(action))?;
                Ok(PlanProgress { unfinished: store.count_unfinished(connection)?, ..progress })
            })
            .await
    }

    /// Does what a plan says, as far as it still holds, and puts on record what became of it.
    ///
    /// What the guard of the home keeps by now, and what goes past the plan's own grant or guard as the cache is by now, is
    /// spared. A removal whose future is dropped ends after the images that it is removing, and its record says so.
    ///
    /// # Errors
    /// [`InvalidPlan`](MicrosandboxError::InvalidPlan) for a plan that [contradicts itself](Plan::check_allowed) and for a
    /// preview, [`PlanForAnotherHome`](MicrosandboxError::PlanForAnotherHome), or where the home cannot be written, its
    /// guard not be understood or its cache [is not there](crate::backend::HomeProblem::CacheMissing).
    /// [`Incomplete`](MicrosandboxError::Incomplete) where something was removed before the error: that stays removed, is in
    /// the error's report, and is on record.
    pub async fn apply(&self, plan: &Plan) -> MicrosandboxResult<PlanReport> {
        self.apply_until(plan, None, pending()).await
    }

    /// As [`apply`](Self::apply), for a plan whose policy has just run, which took so much: that goes on record, too.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_run(&self, plan: &Plan, cost: RunCost) -> MicrosandboxResult<PlanReport> {
        self.apply_until(plan, Some(cost), pending()).await
    }

    /// Applies a plan until `stop` completes. Then the images that are being removed still go, and no others. `cost` is
    /// the cost of the run of the policy, where it has just run: it is put on record.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and where `stop` ended the removal early, [`Incomplete`](MicrosandboxError::Incomplete)
    /// with the report and [`Stopped`](MicrosandboxError::Stopped) as its source.
    pub async fn apply_until(
        &self,
        plan: &Plan,
        cost: Option<RunCost>,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<PlanReport> {
        self.apply_as(plan, Application { cost, ..Application::default() }, stop).await
    }

    /// Applies a plan as a part of something until `stop` completes.
    ///
    /// # Errors
    /// As [`apply_until`](Self::apply_until). That enough went is none.
    pub(crate) async fn apply_as(
        &self,
        plan: &Plan,
        application: Application,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<PlanReport> {
        plan.check_allowed()?;
        plan.check_home(&self.identity().await?)?;
        let stopped = CancelOnDrop::default();
        let (local, plan, stop_flag) = (self.clone(), plan.clone(), Arc::clone(&stopped.0));
        // A task of its own: it completes the record, even if nobody waits for it any longer.
        let mut work = tokio::spawn(async move { local.apply_checked(&plan, application, stop_flag).await });
        let mut stop = pin!(stop);
        let done = poll_fn(|context| {
            if !stopped.0.load(Ordering::Relaxed) && stop.as_mut().poll(context).is_ready() {
                stopped.0.store(true, Ordering::Relaxed);
            }
            Pin::new(&mut work).poll(context)
        });
        match done.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(MicrosandboxError::Interrupted("apply a plan".to_owned())),
        }
    }

    async fn apply_checked(
        &self,
        plan: &Plan,
        application: Application,
        stop: Arc<AtomicBool>,
    ) -> MicrosandboxResult<PlanReport> {
        let started_at = self.now();
        let clock = Instant::now();
        let recheck = Recheck::new(self.store(), plan);
        let mut disk = FullDisk::new(self.store(), plan.collect.clone());
        let recovered = Mutex::new(RecoveredFiles::default());
        let find = || async {
            let (files, finished) = self.store().recover().await?;
            *recovered.lock().unwrap_or_else(PoisonError::into_inner) += files;
            finished?;
            self.targets(plan, recheck.clone()).await
        };
        let found = disk.run(find).await;
        let recovered = recovered.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Targets { chosen, gone } = found.map_err(|error| with_what_went(error, &disk, recovered))?;
        let mut report = PlanReport { gone, recovered, ..PlanReport::of(plan) };
        let nothing_else = plan.unreached.is_empty() && plan.collect.is_empty();
        if chosen.targets.is_empty() && chosen.spared.is_empty() && nothing_else {
            return Ok(report);
        }
        let begun = disk.run(|| record::begin(self.store(), Begun::of(plan, started_at, &application))).await;
        let run = begun.map_err(|error| with_what_went(error, &disk, recovered))?;
        report.run = Some(run.key.number);
        let ends = Ends { stop, enough: application.enough };
        let mut remover = Remover::new(self.store(), run.key, disk, Arc::new(recheck), ends);
        let result = remove_all(&mut remover, plan, chosen.targets).await;
        let had_enough = remover.had_enough();
        let (outcome, finished) = remover.finish().await;
        let ended = result.and(finished).err();
        let is_early = had_enough || ended.is_some();
        let completion = if is_early { Completion::Early } else { Completion::Whole };
        report.add(plan, chosen.spared, outcome, completion);
        report.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);

        let report = Arc::new(report);
        let problem = ended.as_ref().map(ToString::to_string);
        let recorded = record::end(self.store(), run, Arc::clone(&report), problem).await;
        self.store().keep_ballast().await;
        let report = Arc::unwrap_or_clone(report);
        match ended.or(recorded.err()) {
            None => Ok(report),
            // Who stopped it wants to know what was done, even if that is nothing.
            Some(error) if report.is_empty() && !matches!(error, MicrosandboxError::Stopped) => Err(error),
            Some(error) => {
                Err(MicrosandboxError::Incomplete { report: Box::new(report), source: Box::new(error) })
            }
        }
    }

    /// What of the plan is there to be removed.
    async fn targets(&self, plan: &Plan, recheck: Recheck) -> MicrosandboxResult<Targets> {
        let wanted: Vec<String> = plan.removals().map(|entry| entry.reference.clone()).collect();
        let store = Arc::clone(self.store());
        let mut rows = self
            .store()
            .write_on("look up what a plan removes", move |writer, _| {
                store.check_cache(writer.connection())?;
                remove::find_refs(writer.connection(), &wanted)
                    .map_err(MicrosandboxError::db("look up what a plan removes"))
            })
            .await?;
        let (mut targets, mut gone) = (Vec::with_capacity(rows.len()), Vec::new());
        for entry in plan.removals() {
            let Some(row) = rows.remove(&entry.reference) else {
                gone.push(entry.reference.clone());
                continue;
            };
            // A policy that may force is stopped by a pin; an operator who forces has made up their mind.
            let mode = match (entry.force, plan.made_by) {
                (true, Maker::Policy) => RemoveMode::Untag,
                (true, Maker::Removal) => RemoveMode::Force,
                _ => RemoveMode::Unused,
            };
            let manifest_digest = entry.manifest_digest.clone().map(RowDigest::from);
            let expected = ExpectedRef { manifest_digest, last_used_at: entry.last_used_at };
            targets.push(Target { row, mode, expected, reason: entry.reason.clone(), bytes: entry.bytes });
        }
        let missing = gone.len();
        let choose = move |connection: &rusqlite::Connection| recheck.choose(connection, targets, missing);
        let action = "look at the images again";
        let chosen = self.store().write_on(action, move |writer, _| choose(writer.connection())).await?;
        Ok(Targets { chosen, gone })
    }
}

/// What of a plan is there to be removed, and what is gone already.
struct Targets {
    chosen: Chosen,
    gone: Vec<String>,
}

/// An error before the run is on record, with what was deleted until then to make room for the record.
fn with_what_went(error: MicrosandboxError, disk: &FullDisk, recovered: RecoveredFiles) -> MicrosandboxError {
    let removed = &disk.collected.removed;
    let bytes_reclaimed = (!removed.is_empty()).then(|| removed.iter().map(|file| file.bytes).sum());
    let report = ImagePruneReport { bytes_reclaimed, ..ImagePruneReport::default() };
    let problems = disk.collected.problems.clone();
    let report = PlanReport { report, problems, recovered, ..PlanReport::default() };
    if report.is_empty() {
        return error;
    }
    MicrosandboxError::Incomplete { report: Box::new(report), source: Box::new(error) }
}

async fn remove_all(remover: &mut Remover<'_>, plan: &Plan, targets: Vec<Target>) -> MicrosandboxResult<()> {
    let files: HashSet<PathBuf> = plan.collect.iter().map(|file| file.path.clone()).collect();
    // Files that no row owns need less room to go than rows do.
    if remover.found_full_disk() {
        remover.collect(files.clone()).await?;
    }
    remover.remove(targets).await?;
    remover.remove_unreached(UnreachedRows::from(plan)).await?;
    remover.collect(files).await
}

impl From<&Plan> for UnreachedRows {
    fn from(plan: &Plan) -> Self {
        let mut rows = Self::default();
        for row in &plan.unreached {
            match row.kind {
                UnreachedKind::Manifest => rows.manifests.insert(row.digest.clone()),
                UnreachedKind::Layer => rows.layers.insert(row.digest.clone()),
            };
        }
        rows
    }
}

fn progress(
    connection: &rusqlite::Connection,
    wanted: Vec<String>,
    rows: &UnreachedRows,
    files: &[PathBuf],
) -> rusqlite::Result<PlanProgress> {
    let there = remove::find_refs(connection, &wanted)?;
    let mut left = there.len() + files.iter().filter(|file| file.symlink_metadata().is_ok()).count();
    if !rows.manifests.is_empty() {
        roots::refresh(connection)?;
        let manifests = remove::unreached_manifests(connection)?;
        left += manifests.iter().filter(|row| rows.manifests.contains(&row.digest)).count();
    }
    if !rows.layers.is_empty() {
        let layers = remove::unreached_layers(connection)?;
        left += layers.iter().filter(|row| rows.layers.contains(&row.digest)).count();
    }
    let gone = wanted.into_iter().filter(|reference| !there.contains_key(reference)).collect();
    Ok(PlanProgress { gone, left, unfinished: 0 })
}
