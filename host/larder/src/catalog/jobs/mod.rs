//! What a home remembers of its jobs, so that a process can be stopped and started without a run too many or too few.
//!
//! - `larder_job`: up to when the times of a schedule are settled, and what the last runs came to
//! - `larder_job_run`: the runs, for 400 days and at most 10,000 of them
//! - `larder_job_count`: what all runs add up to ([`counters`])
//! - `larder_disk`: the state of the file system in the last two weeks
//!
//! # What survives a crash
//! A transaction or nothing. A run is on record before it begins. One without an end is under way, or its process was
//! killed: only whoever looks for the lock of jobs can tell.

pub(crate) mod counters;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::lenient::{integer, text};
use crate::records::{
    FileSystemSample, FileSystemStatus, JobCause, JobName, JobOutcome, JobRunRecord, JobRunReport, Mode,
};
use counters::Counter;

/// The number of days for which a run is kept.
const KEPT_DAYS: i64 = 400;
/// The number of runs that are kept.
const RUNS_KEPT: i64 = 10_000;
/// The number of days for which a state of the file system is kept.
const SAMPLES_KEPT_DAYS: i64 = 14;

/// What a home remembers of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobState {
    /// When it was first seen in a job file.
    pub(crate) seen_at: DateTime<Utc>,
    /// The schedule for which `settled_at` counts; absent of a job without one.
    pub(crate) schedule: Option<String>,
    /// Every time of the schedule up to this instant is done with.
    pub(crate) settled_at: DateTime<Utc>,
    /// The number of runs in a row that failed.
    pub(crate) failures: u32,
    /// When a run last ended without a failure.
    pub(crate) succeeded_at: Option<DateTime<Utc>>,
}

/// The beginning of a run.
#[derive(Debug, Clone)]
pub(crate) struct NewJobRun<'a> {
    pub(crate) job: &'a JobName,
    pub(crate) cause: JobCause,
    pub(crate) mode: Mode,
    pub(crate) started_at: DateTime<Utc>,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct JobRunEnd<'a> {
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) outcome: JobOutcome,
    pub(crate) report: &'a JobRunReport,
    /// Every time of the schedule up to this instant is done with by this run; absent if it does not count for the schedule.
    pub(crate) settles: Option<DateTime<Utc>>,
    /// What this run adds to what all runs add up to.
    pub(crate) counts: &'a [(Counter, u64)],
}

/// Returns what is remembered of a job.
pub(crate) fn state(connection: &Connection, job: &JobName) -> rusqlite::Result<Option<JobState>> {
    connection
        .prepare_cached(
            "SELECT seen_at, schedule, settled_at, failures, succeeded_at FROM larder_job WHERE name = ?1",
        )?
        .query_row([job.as_str()], |row| {
            Ok(JobState {
                seen_at: milliseconds(row, 0)?.unwrap_or_default(),
                schedule: text(row, 1)?,
                settled_at: milliseconds(row, 2)?.unwrap_or_default(),
                failures: integer(row, 3)?.and_then(|number| number.try_into().ok()).unwrap_or(0),
                succeeded_at: milliseconds(row, 4)?,
            })
        })
        .optional()
}

/// Remembers a job that is seen for the first time, or under another schedule, or after its clock was wrong: the times of
/// its schedule count from now.
pub(crate) fn see(
    connection: &Connection,
    job: &JobName,
    schedule: Option<&str>,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO larder_job (name, seen_at, schedule, settled_at, failures) VALUES (?1, ?2, ?3, ?2, 0)
             ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule, settled_at = excluded.settled_at",
        )?
        .execute(params![job.as_str(), now.timestamp_millis(), schedule])
        .map(drop)
}

/// Begins the record of a run. Returns its number.
pub(crate) fn begin_run(connection: &Connection, run: &NewJobRun<'_>) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO larder_job_run (job, cause, mode, started_at, report) VALUES (?1, ?2, ?3, ?4, '{}')",
        )?
        .insert(params![
            run.job.as_str(),
            run.cause.to_string(),
            run.mode.to_string(),
            run.started_at.timestamp_millis()
        ])
}

/// Ends the record of a run, and adds it to what is remembered of its job.
pub(crate) fn end_run(
    connection: &Connection,
    id: i64,
    run: &NewJobRun<'_>,
    end: &JobRunEnd<'_>,
) -> rusqlite::Result<()> {
    let report = serde_json::to_string(end.report)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let ended_at = end.ended_at.timestamp_millis();
    connection
        .prepare_cached("UPDATE larder_job_run SET ended_at = ?2, outcome = ?3, report = ?4 WHERE id = ?1")?
        .execute(params![id, ended_at, end.outcome.to_string(), report])?;
    let name = run.job.as_str();
    // Somebody may run a job before it was ever looked at whether it is due.
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO larder_job (name, seen_at, settled_at, failures) VALUES (?1, ?2, ?2, 0)",
        )?
        .execute(params![name, run.started_at.timestamp_millis()])?;
    let succeeded_at = (!end.outcome.is_failure()).then_some(ended_at);
    connection
        .prepare_cached(
            "UPDATE larder_job SET failures = iif(?2 IS NULL, failures + 1, 0),
                                   succeeded_at = coalesce(?2, succeeded_at), settled_at = coalesce(?3, settled_at)
              WHERE name = ?1",
        )?
        .execute(params![name, succeeded_at, end.settles.map(|at| at.timestamp_millis())])?;
    counters::add(connection, run.job, end.counts)?;
    expire(connection, end.ended_at)
}

/// Returns runs of a job, or of all, newest first.
pub(crate) fn runs(
    connection: &Connection,
    job: Option<&JobName>,
    limit: u32,
) -> rusqlite::Result<Vec<JobRunRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, job, cause, mode, started_at, ended_at, outcome, report FROM larder_job_run
          WHERE ?1 IS NULL OR job = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![job.map(JobName::as_str), limit], run_record)?;
    // What another version wrote, and this one does not know, hides nothing else.
    rows.filter_map(Result::transpose).collect()
}

fn run_record(row: &Row<'_>) -> rusqlite::Result<Option<JobRunRecord>> {
    let word = |column| Ok::<_, rusqlite::Error>(text(row, column)?.map(serde_json::Value::from));
    let (Some(job), Some(cause), Some(mode), Some(started_at)) = (
        text(row, 1)?.and_then(|name| name.parse().ok()),
        word(2)?.and_then(|word| serde_json::from_value(word).ok()),
        word(3)?.and_then(|word| serde_json::from_value(word).ok()),
        milliseconds(row, 4)?,
    ) else {
        return Ok(None);
    };
    let report = text(row, 7)?.and_then(|report| serde_json::from_str(&report).ok());
    Ok(Some(JobRunRecord {
        id: row.get(0)?,
        job,
        cause,
        mode,
        started_at,
        ended_at: milliseconds(row, 5)?,
        outcome: word(6)?.and_then(|word| serde_json::from_value(word).ok()),
        report: report.unwrap_or_default(),
    }))
}

/// Remembers the state of the file system.
pub(crate) fn sample(connection: &Connection, sample: &FileSystemSample) -> rusqlite::Result<()> {
    let FileSystemStatus { size_bytes, available_bytes, inodes, inodes_free } = sample.status;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    connection.prepare_cached("INSERT OR REPLACE INTO larder_disk VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
        params![
            sample.at.timestamp(),
            number(size_bytes),
            number(available_bytes),
            number(inodes),
            number(inodes_free)
        ],
    )?;
    let oldest = sample.at - TimeDelta::days(SAMPLES_KEPT_DAYS);
    // A clock that was ahead for a while has left states of times to come.
    let latest = sample.at + TimeDelta::days(1);
    connection
        .prepare_cached("DELETE FROM larder_disk WHERE at < ?1 OR at > ?2")?
        .execute([oldest.timestamp(), latest.timestamp()])
        .map(drop)
}

/// Returns when the file system was last looked at, up to now: a clock that was ahead has left states of times to come.
pub(crate) fn last_sample_at(
    connection: &Connection,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let at: Option<i64> = connection
        .prepare_cached("SELECT max(at) FROM larder_disk WHERE at <= ?1")?
        .query_row([now.timestamp()], |row| integer(row, 0))?;
    Ok(at.and_then(|at| DateTime::from_timestamp(at, 0)))
}

/// Returns the states of the file system since an instant, oldest first.
pub(crate) fn samples(
    connection: &Connection,
    since: DateTime<Utc>,
) -> rusqlite::Result<Vec<FileSystemSample>> {
    let mut statement = connection.prepare_cached(
        "SELECT at, size_bytes, available_bytes, inodes, inodes_free FROM larder_disk WHERE at >= ?1 ORDER BY at",
    )?;
    let rows = statement.query_map([since.timestamp()], |row| {
        let number = |column| {
            Ok::<_, rusqlite::Error>(integer(row, column)?.and_then(|number| number.try_into().ok()))
        };
        let status = FileSystemStatus {
            size_bytes: number(1)?.unwrap_or(0),
            available_bytes: number(2)?.unwrap_or(0),
            inodes: number(3)?.unwrap_or(0),
            inodes_free: number(4)?.unwrap_or(0),
        };
        Ok(FileSystemSample { at: DateTime::from_timestamp(row.get(0)?, 0).unwrap_or_default(), status })
    })?;
    rows.collect()
}

fn expire(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    let oldest = now - TimeDelta::days(KEPT_DAYS);
    connection
        .prepare_cached(
            "DELETE FROM larder_job_run WHERE id IN
                 (SELECT id FROM larder_job_run WHERE started_at < ?1
                      OR id <= (SELECT max(id) FROM larder_job_run) - ?2 ORDER BY id LIMIT 100)",
        )?
        .execute([oldest.timestamp_millis(), RUNS_KEPT])
        .map(drop)
}

fn milliseconds(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<DateTime<Utc>>> {
    Ok(integer(row, column)?.and_then(DateTime::from_timestamp_millis))
}
