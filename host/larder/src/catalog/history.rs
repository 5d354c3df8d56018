//! Runs that changed the cache, and what each decided about each image.
//!
//! What was removed or spared is kept for the last thousand runs, what was merely kept for the last ten: a daily job
//! over ten thousand images must not fill the disk that it is there to free.
//!
//! A run is on record before it changes anything, each removal with the rows that it removes, and the end of the run
//! last: one whose process was killed has the decisions that it got to, and no end ([`RunState`]).

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lenient::{integer, text};
use super::{pins, time};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImagePruneReport, Maker, PlanPolicy, RunCost};

/// Of so many runs everything is kept but their kept images.
const RUNS_KEPT: u32 = 1000;
/// The problem on record of a run that has not ended.
const NOT_ENDED: &str = "it has not ended: it is under way, or its process was stopped";
/// Of so many runs the kept images, too.
const RUNS_KEPT_WHOLE: u32 = 10;

/// What became of an image in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was to stay, and stayed.
    Kept,
    /// It was to go, and went.
    Removed,
    /// It was to go, and was left alone.
    Spared,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// The run has ended. If something ended it before it was complete, its [`problem`](RunRecord::problem) says what.
    Ended,
    /// The run has not ended, and a process is changing the home, or may be.
    UnderWay,
    /// The run has not ended, and no process is changing the home: its process was killed.
    Killed,
}

impl RunState {
    /// Returns the problem of a run that has not ended, in words.
    fn problem(self) -> Option<&'static str> {
        match self {
            Self::Ended => None,
            Self::UnderWay => Some("it is under way"),
            Self::Killed => Some("its process was killed before it was complete"),
        }
    }
}

/// A run that changed the cache, or was to and was refused or failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// The policy's config.
    pub config: Option<Value>,
    /// What running the policy took; absent where a plan was applied that was made before.
    pub cost: Option<RunCost>,
    /// How long applying it took, in milliseconds.
    pub duration_ms: u64,
    /// The policy's grant, with everything that any guard kept.
    pub grant: Option<Value>,
    /// Its number; later runs have higher ones.
    pub id: i64,
    /// The job of which it was a step; absent where somebody made it.
    pub job: Option<String>,
    /// How many images it kept, as far as that is still on record.
    pub kept: u64,
    /// What made its plan; absent where it was recorded by an earlier version.
    pub made_by: Option<Maker>,
    /// The policy that decided; absent without one, and where it could not say what it is.
    pub policy: Option<PlanPolicy>,
    /// What ended it before it was complete, or that it has not ended.
    pub problem: Option<String>,
    /// How many images it removed.
    pub removed: u64,
    /// What it removed. Of a run that has not ended, the images that are on record, and the bytes that removing them was
    /// expected to free.
    pub report: ImagePruneReport,
    /// How many images it was to remove and left alone.
    pub spared: u64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it has come.
    pub state: RunState,
}

impl RunRecord {
    /// Returns the same record for a run in this state.
    pub(crate) fn in_state(self, state: RunState) -> Self {
        let problem = state.problem().map(str::to_owned).or(self.problem);
        Self { problem, state, ..self }
    }
}

/// What a run decided about an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecisionRecord {
    /// Allocated bytes that it freed.
    pub bytes: u64,
    /// The manifest that the reference named then.
    pub manifest_digest: Option<String>,
    /// The policy that decided; absent for a plain prune.
    pub policy: Option<PlanPolicy>,
    /// Why.
    pub reason: String,
    /// The number of the run.
    pub run: i64,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// What became of it.
    pub verdict: Verdict,
}

/// A decision to put on record.
pub(crate) struct NewDecision<'a> {
    /// As [`pins::key`] makes it.
    pub(crate) key: String,
    pub(crate) manifest_digest: Option<&'a str>,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Cow<'a, str>,
    pub(crate) bytes: u64,
}

/// The beginning of a run.
pub(crate) struct NewRun<'a> {
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) made_by: Maker,
    pub(crate) policy: Option<&'a PlanPolicy>,
    pub(crate) config: Option<&'a Value>,
    /// A grant, with the guard of the run, as a document.
    pub(crate) grant: Option<&'a Value>,
    pub(crate) cost: Option<RunCost>,
    /// The job of which it is a step.
    pub(crate) job: Option<&'a str>,
}

/// The end of a run.
pub(crate) struct RunEnd<'a> {
    pub(crate) problem: Option<&'a str>,
    pub(crate) report: &'a ImagePruneReport,
    pub(crate) duration_ms: u64,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Removed => "removed",
            Self::Spared => "spared",
        }
    }

    fn from_str(text: &str) -> Option<Self> {
        [Self::Kept, Self::Removed, Self::Spared].into_iter().find(|verdict| verdict.as_str() == text)
    }
}

/// A run on record. Its number alone may stand for another run in an index that was replaced meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunKey {
    pub(crate) number: i64,
    pub(crate) started_at: DateTime<Utc>,
}

/// Returns whether a run is on record.
pub(crate) fn is_on_record(connection: &Connection, run: RunKey) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM larder_run WHERE id = ?1 AND started_at = ?2")?;
    statement.exists(params![run.number, time::format(run.started_at)])
}

/// Begins the record of a run.
pub(crate) fn begin_run(connection: &Connection, run: &NewRun<'_>) -> rusqlite::Result<RunKey> {
    let &NewRun { started_at, made_by, policy, config, grant, cost, job } = run;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO larder_run (started_at, policy_name, policy_version, policy_hash, problem, report, duration_ms,
                                     made_by, config, granted, policy_ms, fuel, job)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .insert(params![
            time::format(started_at),
            policy.map(|policy| &policy.name),
            policy.map(|policy| &policy.version),
            policy.map(|policy| &policy.hash),
            NOT_ENDED,
            json(&ImagePruneReport::default())?,
            made_by.to_string(),
            config.map(Value::to_string),
            grant.map(Value::to_string),
            cost.map(|cost| number(cost.duration_ms)),
            cost.and_then(|cost| cost.fuel).map(number),
            job,
        ])
        .map(|number| RunKey { number, started_at })
}

/// Ends the record of a run.
pub(crate) fn end_run(connection: &Connection, run: i64, end: &RunEnd<'_>) -> rusqlite::Result<()> {
    let duration_ms = i64::try_from(end.duration_ms).unwrap_or(i64::MAX);
    connection
        .prepare_cached("UPDATE larder_run SET problem = ?2, report = ?3, duration_ms = ?4 WHERE id = ?1")?
        .execute(params![run, end.problem, json(end.report)?, duration_ms])
        .map(drop)
}

fn json(report: &ImagePruneReport) -> rusqlite::Result<String> {
    serde_json::to_string(report).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Puts decisions of a run on record. A removal that is on record already gets the bytes that were measured.
pub(crate) fn insert_decisions(
    connection: &Connection,
    run: i64,
    decisions: &[NewDecision<'_>],
) -> rusqlite::Result<()> {
    // Two spellings of a reference in one run: the decision that changed something is the one to remember.
    let mut insert = connection.prepare_cached(
        "INSERT INTO larder_decision (run_id, reference, manifest_digest, decision, reason, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (run_id, reference) DO UPDATE SET
             manifest_digest = excluded.manifest_digest, decision = excluded.decision, reason = excluded.reason,
             bytes = excluded.bytes
          WHERE excluded.decision = 'removed'",
    )?;
    for decision in decisions {
        insert.execute(params![
            run,
            decision.key,
            decision.manifest_digest,
            decision.verdict.as_str(),
            decision.reason.as_ref(),
            i64::try_from(decision.bytes).unwrap_or(i64::MAX),
        ])?;
    }
    Ok(())
}

/// Whether anything is left that is too old to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing is.
    Done,
    /// Something may be.
    More,
}

/// Lets go of what is too old to be kept: of at most so many decisions, so that a transaction is short however large a
/// run was.
pub(crate) fn expire(connection: &Connection, at_most: usize) -> rusqlite::Result<Expiry> {
    let delete = |query: &str, runs_kept: u32, limit: usize| {
        connection
            .prepare_cached(query)?
            .execute(params![runs_kept, i64::try_from(limit).unwrap_or(i64::MAX)])
    };
    let of_runs = delete(
        "DELETE FROM larder_decision WHERE (run_id, reference) IN
             (SELECT run_id, reference FROM larder_decision
               WHERE run_id <= (SELECT max(id) FROM larder_run) - ?1 LIMIT ?2)",
        RUNS_KEPT,
        at_most,
    )?;
    let kept = delete(
        "DELETE FROM larder_decision WHERE (run_id, reference) IN
             (SELECT run_id, reference FROM larder_decision
               WHERE decision = 'kept' AND run_id <= (SELECT max(id) FROM larder_run) - ?1 LIMIT ?2)",
        RUNS_KEPT_WHOLE,
        at_most.saturating_sub(of_runs),
    )?;
    if of_runs + kept >= at_most {
        return Ok(Expiry::More);
    }
    // Nothing is left of these runs that would go with them.
    connection
        .prepare_cached("DELETE FROM larder_run WHERE id <= (SELECT max(id) FROM larder_run) - ?1")?
        .execute([RUNS_KEPT])?;
    Ok(Expiry::Done)
}

/// The last runs, newest first.
pub(crate) fn runs(connection: &Connection, limit: u32) -> MicrosandboxResult<Vec<RunRecord>> {
    let query = || -> rusqlite::Result<Vec<RunRecord>> {
        // A home that an earlier Larder wrote last is read as it is.
        let has =
            |column: &str| connection.prepare(&format!("SELECT {column} FROM larder_run LIMIT 0")).is_ok();
        let more = if has("made_by") {
            "run.made_by, run.config, run.granted, run.policy_ms, run.fuel"
        } else {
            "NULL, NULL, NULL, NULL, NULL"
        };
        let job = if has("job") { "run.job" } else { "NULL" };
        let query = format!(
            "SELECT run.started_at, run.policy_name, run.policy_version, run.policy_hash, run.id, run.problem, run.report,
                    run.duration_ms,
                    count(*) FILTER (WHERE decision.decision = 'removed'),
                    count(*) FILTER (WHERE decision.decision = 'spared'),
                    count(*) FILTER (WHERE decision.decision = 'kept'), {more},
                    sum(decision.bytes) FILTER (WHERE decision.decision = 'removed'), {job}
               FROM larder_run AS run LEFT JOIN larder_decision AS decision ON decision.run_id = run.id
              WHERE run.id IN (SELECT id FROM larder_run ORDER BY id DESC LIMIT ?1)
              GROUP BY run.id ORDER BY run.id DESC"
        );
        let mut statement = connection.prepare_cached(&query)?;
        statement.query_map([limit], run_record)?.collect()
    };
    query().map_err(MicrosandboxError::db("list past runs"))
}

fn run_record(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let document = |column| Ok::<_, rusqlite::Error>(text(row, column)?.and_then(|text| text.parse().ok()));
    let unsigned_at = |column| {
        Ok::<_, rusqlite::Error>(integer(row, column)?.and_then(|number| u64::try_from(number).ok()))
    };
    let fuel = unsigned_at(15)?;
    let made_by = text(row, 11)?.and_then(|word| serde_json::from_value(Value::from(word)).ok());
    let removed = unsigned(row, 8)?;
    let problem: Option<String> = row.get(5)?;
    let state = if problem.as_deref() == Some(NOT_ENDED) { RunState::UnderWay } else { RunState::Ended };
    let report = match state {
        RunState::Ended => serde_json::from_str(row.get_ref(6)?.as_str()?).unwrap_or_default(),
        RunState::UnderWay | RunState::Killed => ImagePruneReport {
            image_refs_removed: u32::try_from(removed).unwrap_or(u32::MAX),
            bytes_reclaimed: unsigned_at(16)?,
            ..ImagePruneReport::default()
        },
    };
    let record = RunRecord {
        config: document(12)?,
        cost: unsigned_at(14)?.map(|duration_ms| RunCost { duration_ms, fuel }),
        grant: document(13)?,
        made_by,
        started_at: started_at(row)?,
        policy: policy(row)?,
        id: row.get(4)?,
        job: text(row, 17)?,
        problem,
        report,
        duration_ms: unsigned(row, 7)?,
        removed,
        spared: unsigned(row, 9)?,
        kept: unsigned(row, 10)?,
        state,
    };
    Ok(record.in_state(state))
}

/// What runs decided about a reference in any spelling, newest first.
pub(crate) fn decisions(connection: &Connection, reference: &str) -> MicrosandboxResult<Vec<DecisionRecord>> {
    let query = || -> rusqlite::Result<Vec<DecisionRecord>> {
        let mut statement = connection.prepare_cached(
            "SELECT run.started_at, run.policy_name, run.policy_version, run.policy_hash, run.id,
                    decision.manifest_digest, decision.decision, decision.reason, decision.bytes
               FROM larder_decision AS decision JOIN larder_run AS run ON run.id = decision.run_id
              WHERE decision.reference = ?1 ORDER BY run.id DESC",
        )?;
        statement.query_map([pins::key(reference)], decision_record)?.collect()
    };
    query().map_err(MicrosandboxError::db("look past decisions up"))
}

fn decision_record(row: &Row<'_>) -> rusqlite::Result<DecisionRecord> {
    Ok(DecisionRecord {
        started_at: started_at(row)?,
        policy: policy(row)?,
        run: row.get(4)?,
        manifest_digest: row.get(5)?,
        verdict: verdict(row, 6)?,
        reason: row.get(7)?,
        bytes: unsigned(row, 8)?,
    })
}

pub(super) fn verdict(row: &Row<'_>, column: usize) -> rusqlite::Result<Verdict> {
    let verdict = Verdict::from_str(row.get_ref(column)?.as_str()?);
    verdict.ok_or(rusqlite::Error::InvalidColumnName("decision".to_owned()))
}

fn started_at(row: &Row<'_>) -> rusqlite::Result<DateTime<Utc>> {
    Ok(time::parse(row.get_ref(0)?.as_str()?).unwrap_or_default())
}

fn policy(row: &Row<'_>) -> rusqlite::Result<Option<PlanPolicy>> {
    let name: Option<String> = row.get(1)?;
    let Some(name) = name else { return Ok(None) };
    let also = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    Ok(Some(PlanPolicy { name, version: also(2)?, hash: also(3)? }))
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
