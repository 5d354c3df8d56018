//! What is remembered of jobs: in the home, and in this process where the home has no room for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::due::Situation;
use crate::backend::LocalBackend;
use crate::catalog::jobs::counters::{Counter, JobCounters, Measure};
use crate::catalog::jobs::{self, JobRunEnd, JobState, NewJobRun};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::job::file::{Job, JobName, Trigger};
use crate::job::report::JobReport;
use crate::records::{FileSystemSample, JobCause, JobOutcome, JobRunRecord, JobRunReport};
use crate::store::full_disk;

/// What is remembered of a job.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) state: Option<JobState>,
    pub(super) last: Option<JobRunRecord>,
}

impl Remembered {
    pub(super) fn at(&self, now: DateTime<Utc>, share: f64) -> Situation<'_> {
        Situation { state: self.state.as_ref(), last: self.last.as_ref(), now, share }
    }
}

/// A run that has begun.
pub(super) struct Begun {
    /// The number of its record; absent if the home had no room for one.
    number: Option<i64>,
    cause: JobCause,
    started_at: DateTime<Utc>,
}

/// The memory of jobs in a home.
pub(super) struct Memory {
    local: LocalBackend,
    /// What the home had no room for.
    unwritten: Mutex<HashMap<JobName, Remembered>>,
}

impl Memory {
    pub(super) fn new(local: LocalBackend) -> Self {
        Self { local, unwritten: Mutex::default() }
    }

    /// Returns what is remembered of each of these jobs.
    pub(super) async fn of(&self, names: Vec<JobName>) -> MicrosandboxResult<HashMap<JobName, Remembered>> {
        let action = "look up what jobs did";
        let mut all: HashMap<JobName, Remembered> = self
            .local
            .store()
            .read(action, move |connection| {
                let of = |name: JobName| {
                    let state = jobs::state(connection, &name)?;
                    let last = jobs::runs(connection, Some(&name), 1)?.pop();
                    Ok((name, Remembered { state, last }))
                };
                names
                    .into_iter()
                    .map(of)
                    .collect::<rusqlite::Result<_>>()
                    .map_err(MicrosandboxError::db(action))
            })
            .await?;
        for (name, unwritten) in &*self.unwritten() {
            let Some(written) = all.get_mut(name) else { continue };
            let ended = |remembered: &Remembered| remembered.last.as_ref().map(|last| last.started_at);
            if ended(unwritten) > ended(written) || written.state.is_none() {
                *written = unwritten.clone();
            }
        }
        Ok(all)
    }

    /// Makes, or makes anew, what is remembered of a job. Its schedule counts from now.
    pub(super) async fn see(&self, job: &Job, now: DateTime<Utc>) -> MicrosandboxResult<()> {
        let schedule = match &job.trigger {
            Trigger::Schedule { schedule, .. } => Some(schedule.to_string()),
            Trigger::Pressure(_) => None,
        };
        let state = JobState {
            seen_at: now,
            schedule: schedule.clone(),
            settled_at: now,
            failures: 0,
            succeeded_at: None,
        };
        let name = job.name.clone();
        let written =
            self.change(move |connection| jobs::see(connection, &name, schedule.as_deref(), now)).await;
        match written {
            Err(error) if full_disk::is_full(&error) => {
                let kept = Remembered { state: Some(state), last: None };
                self.unwritten().entry(job.name.clone()).or_insert(kept);
                Ok(())
            }
            result => result,
        }
    }

    /// Puts on record that a job begins.
    pub(super) async fn begin(&self, job: &Job, cause: JobCause) -> MicrosandboxResult<Begun> {
        let (name, mode, started_at) = (job.name.clone(), job.mode, self.local.now());
        let begin = move |connection: &rusqlite::Connection| {
            jobs::begin_run(connection, &NewJobRun { job: &name, cause, mode, started_at })
        };
        match self.change(begin).await {
            Ok(number) => Ok(Begun { number: Some(number), cause, started_at }),
            Err(error) if full_disk::is_full(&error) => Ok(Begun { number: None, cause, started_at }),
            Err(error) => Err(error),
        }
    }

    /// Puts on record what became of a run. `settles` is up to when it settles the times of a schedule.
    pub(super) async fn end(
        &self,
        job: &Job,
        begun: Begun,
        ran: &MicrosandboxResult<JobReport>,
        settles: Option<DateTime<Utc>>,
    ) -> MicrosandboxResult<JobRunRecord> {
        let ended_at = self.local.now();
        let (outcome, report) = match ran {
            Ok(ran) => (ran.outcome(), ran.to_record()),
            Err(error) => {
                let problem = Some(error.to_string());
                (JobOutcome::Error, JobRunReport { problem, ..JobRunReport::default() })
            }
        };
        let counts = counts(begun.cause, outcome, &report, ran.as_ref().ok(), ended_at - begun.started_at);
        let settles = settles.filter(|_| !outcome.is_failure());
        let mut record = JobRunRecord {
            id: begun.number.unwrap_or_default(),
            job: job.name.clone(),
            cause: begun.cause,
            mode: job.mode,
            started_at: begun.started_at,
            ended_at: Some(ended_at),
            outcome: Some(outcome),
            report: report.clone(),
        };
        let (name, mode, number) = (job.name.clone(), job.mode, begun.number);
        let end = move |connection: &rusqlite::Connection| {
            let run = NewJobRun { job: &name, cause: begun.cause, mode, started_at: begun.started_at };
            let number = number.map_or_else(|| jobs::begin_run(connection, &run), Ok)?;
            let end = JobRunEnd { ended_at, outcome, report: &report, settles, counts: &counts };
            jobs::end_run(connection, number, &run, &end).map(|()| number)
        };
        match self.change(end).await {
            Ok(number) => {
                self.unwritten().remove(&job.name);
                record.id = number;
            }
            Err(error) if full_disk::is_full(&error) => self.remember(&record, settles),
            Err(error) => return Err(error),
        }
        Ok(record)
    }

    /// Returns when the file system was last looked at.
    pub(super) async fn looked_at(&self, now: DateTime<Utc>) -> MicrosandboxResult<Option<DateTime<Utc>>> {
        let action = "look up when the file system was looked at";
        let look = move |connection: &rusqlite::Connection| {
            jobs::last_sample_at(connection, now).map_err(MicrosandboxError::db(action))
        };
        self.local.store().read(action, look).await
    }

    /// Remembers the state of the file system.
    pub(super) async fn sample(&self, sample: FileSystemSample) -> MicrosandboxResult<()> {
        match self.change(move |connection| jobs::sample(connection, &sample)).await {
            Err(error) if full_disk::is_full(&error) => Ok(()),
            result => result,
        }
    }

    /// Keeps in this process what the home has no room for.
    fn remember(&self, record: &JobRunRecord, settles: Option<DateTime<Utc>>) {
        let mut unwritten = self.unwritten();
        let kept = unwritten.remove(&record.job).and_then(|kept| kept.state);
        let mut state = kept.unwrap_or(JobState {
            seen_at: record.started_at,
            schedule: None,
            settled_at: record.started_at,
            failures: 0,
            succeeded_at: None,
        });
        if record.outcome.is_some_and(JobOutcome::is_failure) {
            state.failures += 1;
        } else {
            state.failures = 0;
            state.succeeded_at = record.ended_at;
        }
        state.settled_at = settles.unwrap_or(state.settled_at);
        unwritten.insert(record.job.clone(), Remembered { state: Some(state), last: Some(record.clone()) });
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, HashMap<JobName, Remembered>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> MicrosandboxResult<T> {
        let action = "put a job on record";
        let change = move |writer: &mut crate::catalog::Writer, _: &_| {
            writer.change(action, |connection| change(connection).map_err(MicrosandboxError::db(action)))
        };
        self.local.store().write_on(action, change).await
    }
}

impl LocalBackend {
    /// Returns the last runs of a job, or of all jobs, newest first, at most `limit`. One without an end is under way, or
    /// its process was killed.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn job_runs(&self, job: Option<&JobName>, limit: u32) -> MicrosandboxResult<Vec<JobRunRecord>> {
        let (action, job) = ("list runs of jobs", job.cloned());
        let list = move |connection: &rusqlite::Connection| {
            jobs::runs(connection, job.as_ref(), limit).map_err(MicrosandboxError::db(action))
        };
        self.store().read(action, list).await
    }

    /// Returns what all runs of each job add up to, in the order of their names.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn job_counters(&self) -> MicrosandboxResult<Vec<JobCounters>> {
        let action = "read what jobs add up to";
        let all = move |connection: &rusqlite::Connection| {
            jobs::counters::all(connection).map_err(MicrosandboxError::db(action))
        };
        self.store().read(action, all).await
    }

    /// Returns the recorded states of the file system since an instant, oldest first. They are kept for two weeks.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn file_system_samples(
        &self,
        since: DateTime<Utc>,
    ) -> MicrosandboxResult<Vec<FileSystemSample>> {
        let action = "read past states of the file system";
        let samples = move |connection: &rusqlite::Connection| {
            jobs::samples(connection, since).map_err(MicrosandboxError::db(action))
        };
        self.store().read(action, samples).await
    }
}

/// Returns what a run adds to what all runs add up to.
fn counts(
    cause: JobCause,
    outcome: JobOutcome,
    report: &JobRunReport,
    ran: Option<&JobReport>,
    took: chrono::TimeDelta,
) -> Vec<(Counter, u64)> {
    let milliseconds = u64::try_from(took.num_milliseconds()).unwrap_or(0);
    let mut counts =
        vec![(Counter::Attempts(cause, outcome), 1), (Counter::Measured(Measure::Duration), milliseconds)];
    if let Some(goal) = report.goal_bytes {
        counts.push((Counter::Measured(Measure::Target), goal));
    }
    // What was only planned is not gone.
    if ran.is_some_and(|ran| ran.rounds().any(|round| round.report.is_some())) {
        counts.push((Counter::Removed, report.removed));
        counts.push((Counter::Measured(Measure::Freed), report.freed_bytes));
    }
    let spared = ran.into_iter().flat_map(JobReport::last_of_each_step).flat_map(|report| &report.spared);
    for cause in spared.filter_map(|image| image.spared_by) {
        counts.push((Counter::Spared(cause), 1));
    }
    counts
}
