//! The record of an application: the run before anything is removed, and its end when all is done.
//!
//! What is removed in between goes on record with the rows that are removed
//! ([`removal`](crate::store::removal)).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::apply::{ImageVerdict, PlanReport};
use super::document::Plan;
use crate::catalog::history::{self, Expiry, NewDecision, RunEnd, Verdict};
use crate::catalog::{Writer, pins};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::store::Store;

/// So many decisions are put on record in one transaction, or let go of: a few milliseconds' worth.
const DECISIONS_AT_ONCE: usize = 1000;

/// Puts on record that a plan is being applied. Returns the number of the run.
pub(super) async fn begin(store: &Store, plan: &Plan, started_at: DateTime<Utc>) -> MicrosandboxResult<i64> {
    let policy = plan.policy.clone();
    let action = "put a run on record";
    let begin = move |writer: &mut Writer, _: &_| {
        in_transaction(writer, |index| history::begin_run(index, started_at, policy.as_ref()))
    };
    store.write_on(action, begin).await
}

/// Puts on record what became of a run, and what ended it before it was complete.
pub(super) async fn end(
    store: &Store,
    run: i64,
    report: Arc<PlanReport>,
    problem: Option<String>,
) -> MicrosandboxResult<()> {
    let action = "put the end of a run on record";
    let end = move |writer: &mut Writer, _: &_| end_run(writer, run, &report, problem.as_deref());
    store.write_on(action, end).await
}

fn end_run(
    writer: &mut Writer,
    run: i64,
    report: &PlanReport,
    problem: Option<&str>,
) -> MicrosandboxResult<()> {
    // Other programs write to the index as well: it is locked for a short time only, several times.
    let decisions: Vec<NewDecision<'_>> = decisions(report).collect();
    for decisions in decisions.chunks(DECISIONS_AT_ONCE) {
        in_transaction(writer, |index| history::insert_decisions(index, run, decisions))?;
    }
    let end = RunEnd { problem, report: &report.report, duration_ms: report.duration_ms };
    in_transaction(writer, |index| history::end_run(index, run, &end))?;
    expire(writer)
}

/// Lets go of old decisions. The index is free for others between two transactions for as long as one takes.
fn expire(writer: &mut Writer) -> MicrosandboxResult<()> {
    loop {
        let clock = Instant::now();
        if in_transaction(writer, |index| history::expire(index, DECISIONS_AT_ONCE))? == Expiry::Done {
            return Ok(());
        }
        std::thread::sleep(clock.elapsed());
    }
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
