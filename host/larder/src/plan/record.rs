//! The record of an application: the run before anything is removed, and its end when all is done.
//!
//! What is removed in between goes on record with the rows that are removed
//! ([`removal`](crate::store::removal)).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::application::Application;
use super::document::Plan;
use super::report::{ImageVerdict, PlanReport};
use crate::backend::LocalBackend;
use crate::catalog::history::{self, Expiry, NewDecision, NewRun, RunEnd, RunKey, Verdict};
use crate::catalog::{Writer, deletions, pins};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::home::RunLock;
use crate::policy::GrantDocument;
use crate::records::{Maker, PlanPolicy, RunCost};
use crate::store::Store;

/// So many decisions are put on record in one transaction, or let go of: a few milliseconds' worth.
const DECISIONS_AT_ONCE: usize = 1000;

/// A run of a policy that removed nothing, since it failed or was refused.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FailedRun {
    /// Why, in one sentence.
    pub problem: String,
    /// The policy, as far as it says what it is.
    pub policy: Option<PlanPolicy>,
    /// Its config.
    pub config: serde_json::Value,
    /// Its grant; absent for a preview.
    pub grant: Option<GrantDocument>,
    /// What it took, where that is known.
    pub cost: Option<RunCost>,
    /// The job of which it was a step.
    pub job: Option<String>,
}

impl FailedRun {
    /// A run that ended for this reason, of a policy of which nothing is known.
    pub fn new(problem: impl Into<String>) -> Self {
        let config = serde_json::Value::Object(serde_json::Map::new());
        Self { problem: problem.into(), policy: None, config, grant: None, cost: None, job: None }
    }
}

impl LocalBackend {
    /// Puts a run on record that removed nothing, so that its absence can be explained. Returns its number.
    ///
    /// # Errors
    /// Where the home cannot be written.
    pub async fn record_failure(&self, run: FailedRun) -> MicrosandboxResult<i64> {
        let FailedRun { problem, policy, config, grant, cost, job } = run;
        let begun = Begun {
            started_at: self.now(),
            made_by: Maker::Policy,
            policy,
            config: Some(config),
            grant: grant.as_ref().and_then(|grant| serde_json::to_value(grant).ok()),
            cost,
            job,
        };
        let run = begin(self.store(), begun).await?;
        let number = run.key.number;
        end(self.store(), run, Arc::default(), Some(problem)).await?;
        Ok(number)
    }
}

/// What is on record of a run from its beginning.
pub(super) struct Begun {
    started_at: DateTime<Utc>,
    made_by: Maker,
    policy: Option<PlanPolicy>,
    config: Option<serde_json::Value>,
    grant: Option<serde_json::Value>,
    cost: Option<RunCost>,
    job: Option<String>,
}

impl Begun {
    /// The application of a plan.
    pub(super) fn of(plan: &Plan, started_at: DateTime<Utc>, application: &Application) -> Self {
        let grant = plan.grant.clone().map(|grant| match &plan.guard {
            Some(guard) => grant.with_guard(guard.clone()),
            None => grant,
        });
        Self {
            started_at,
            made_by: plan.made_by,
            policy: plan.policy.clone(),
            config: plan.config.clone(),
            // What serialized into the plan serializes.
            grant: grant.as_ref().and_then(|grant| serde_json::to_value(grant).ok()),
            cost: application.cost,
            job: application.job.clone(),
        }
    }
}

/// A run that is on record and has not ended.
pub(super) struct OpenRun {
    pub(super) key: RunKey,
    /// Absent if the lock cannot be had: then nobody can tell for certain that the run is under way.
    _lock: Option<RunLock>,
}

/// Puts on record that something is about to be removed.
pub(super) async fn begin(store: &Store, begun: Begun) -> MicrosandboxResult<OpenRun> {
    let action = "put a run on record";
    let paths = store.catalog().paths().clone();
    let begin = move |writer: &mut Writer, _: &_| {
        let lock = RunLock::take(&paths).map_err(|error| {
            tracing::warn!("could not lock `{}`: {error}", paths.db_dir.display());
        });
        let Begun { started_at, made_by, policy, config, grant, cost, job } = &begun;
        let run = NewRun {
            started_at: *started_at,
            made_by: *made_by,
            policy: policy.as_ref(),
            config: config.as_ref(),
            grant: grant.as_ref(),
            cost: *cost,
            job: job.as_deref(),
        };
        let key = in_transaction(writer, |index| history::begin_run(index, &run))?;
        Ok(OpenRun { key, _lock: lock.ok() })
    };
    store.write_on(action, begin).await
}

/// Puts on record what became of a run, and what ended it before it was complete.
pub(super) async fn end(
    store: &Store,
    run: OpenRun,
    report: Arc<PlanReport>,
    problem: Option<String>,
) -> MicrosandboxResult<()> {
    let action = "put the end of a run on record";
    let end = move |writer: &mut Writer, _: &_| end_run(writer, run.key, &report, problem.as_deref());
    store.write_on(action, end).await
}

fn end_run(
    writer: &mut Writer,
    run: RunKey,
    report: &PlanReport,
    problem: Option<&str>,
) -> MicrosandboxResult<()> {
    let is_on_record = history::is_on_record(writer.connection(), run);
    if !is_on_record.map_err(MicrosandboxError::db("find the run on record"))? {
        return Err(writer.replaced());
    }
    let run = run.number;
    // Other programs write to the index as well: it is locked for a short time only, several times.
    let decisions: Vec<NewDecision<'_>> = decisions(report).collect();
    let end = RunEnd { problem, report: &report.report, duration_ms: report.duration_ms };
    let mut chunks = decisions.chunks(DECISIONS_AT_ONCE);
    let last = chunks.next_back().unwrap_or_default();
    for decisions in chunks {
        in_transaction(writer, |index| history::insert_decisions(index, run, decisions))?;
    }
    let synced = std::mem::take(&mut writer.synced);
    let ended = in_transaction(writer, |index| {
        deletions::forget(index, &synced)?;
        history::insert_decisions(index, run, last)?;
        history::end_run(index, run, &end)?;
        history::expire(index, DECISIONS_AT_ONCE - last.len())
    });
    if ended.is_err() {
        writer.synced = synced;
    }
    let expiry = ended?;
    failpoint!("removal.forgotten");
    expire(writer, expiry)
}

/// Lets go of the old decisions that are left. The index is free for others between two transactions for as long as one
/// takes.
fn expire(writer: &mut Writer, mut expiry: Expiry) -> MicrosandboxResult<()> {
    while expiry == Expiry::More {
        let clock = Instant::now();
        expiry = in_transaction(writer, |index| history::expire(index, DECISIONS_AT_ONCE))?;
        std::thread::sleep(clock.elapsed());
    }
    Ok(())
}

fn in_transaction<T>(
    writer: &mut Writer,
    change: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
) -> MicrosandboxResult<T> {
    let action = "put a run on record";
    writer.change(action, |connection| change(connection).map_err(MicrosandboxError::db(action)))
}

fn decisions(report: &PlanReport) -> impl Iterator<Item = NewDecision<'_>> {
    let removed = report.removed.iter().map(|image| decision(Verdict::Removed, image));
    let spared = report.spared.iter().map(|image| decision(Verdict::Spared, image));
    let kept = report.kept.iter().map(|image| decision(Verdict::Kept, image));
    removed.chain(spared).chain(kept)
}

fn decision(verdict: Verdict, image: &ImageVerdict) -> NewDecision<'_> {
    NewDecision {
        key: pins::key(&image.reference),
        manifest_digest: image.manifest_digest.as_deref(),
        verdict,
        reason: Cow::Borrowed(image.reason.as_str()),
        bytes: image.bytes,
    }
}
