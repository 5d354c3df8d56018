//! What runs decided, a run at a time: for whoever looks at a run and not at an image.

use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::Value;

use super::history::{Verdict, unsigned, verdict};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// What some runs decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunDecisions {
    /// As many as were asked for.
    pub decisions: Vec<RunDecision>,
    /// How many of them there are on record.
    pub total: u64,
}

/// A decision of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunDecision {
    /// Allocated bytes that it freed.
    pub bytes: u64,
    /// Why.
    pub reason: String,
    /// The reference.
    pub reference: String,
    /// The number of the run.
    pub run: i64,
    /// What became of the image.
    pub verdict: Verdict,
}

/// Returns what these runs decided: what went first, then what was left alone, the largest first.
pub(crate) fn of_runs(connection: &Connection, runs: &[i64], limit: u32) -> MicrosandboxResult<RunDecisions> {
    let query = || -> rusqlite::Result<RunDecisions> {
        let runs = Value::from(runs).to_string();
        let mut count = connection.prepare_cached(
            "SELECT count(*) FROM larder_decision WHERE run_id IN (SELECT value FROM json_each(?1))",
        )?;
        let mut list = connection.prepare_cached(
            "SELECT reference, run_id, decision, reason, bytes FROM larder_decision
              WHERE run_id IN (SELECT value FROM json_each(?1))
              ORDER BY CASE decision WHEN 'removed' THEN 0 WHEN 'spared' THEN 1 ELSE 2 END, bytes DESC, reference, run_id
              LIMIT ?2",
        )?;
        let decisions =
            list.query_map(params![runs, limit], run_decision)?.collect::<rusqlite::Result<_>>()?;
        let total = count.query_row([&runs], |row| unsigned(row, 0))?;
        Ok(RunDecisions { decisions, total })
    };
    query().map_err(MicrosandboxError::db("list what runs decided"))
}

fn run_decision(row: &Row<'_>) -> rusqlite::Result<RunDecision> {
    Ok(RunDecision {
        bytes: unsigned(row, 4)?,
        reason: row.get(3)?,
        reference: row.get(0)?,
        run: row.get(1)?,
        verdict: verdict(row, 2)?,
    })
}
