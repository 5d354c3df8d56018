//! What jobs are up to: for people, probes and metrics.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::due::{self, Due, due};
use super::{Jobs, Remembered};
use crate::error::MicrosandboxResult;
use crate::home::{JobLock, host};
use crate::job::file::{Job, JobName, Mode, Pressure, Trigger};
use crate::job::watermark::ResolvedWatermark;
use crate::records::{FileSystemStatus, JobOutcome, JobRunRecord};

/// How much later than it should a job may have succeeded before that is a fault.
const GRACE: TimeDelta = TimeDelta::minutes(30);
/// So many failures in a row are a fault.
const FAILURES: u32 = 3;
/// How many runs are looked at for how long a goal has not been met.
const LOOKED_AT: u32 = 50;

/// What the jobs of a file are up to.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobsStatus {
    /// When this was asked.
    pub at: DateTime<Utc>,
    /// The state of the file system.
    pub file_system: FileSystemStatus,
    /// When somebody last looked at the jobs, at most some ten minutes before the truth; absent if nobody ever did.
    pub looked_at: Option<DateTime<Utc>>,
    /// The jobs, in the order of their names.
    pub jobs: Vec<JobStatus>,
}

/// What a job is up to.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its name.
    pub job: JobName,
    /// Removing, or only planning.
    pub mode: Mode,
    /// What it does now.
    pub state: JobState,
    /// When it is due next; absent of one under pressure, and of one that was never looked at.
    pub next_at: Option<DateTime<Utc>>,
    /// Its last run.
    pub last: Option<JobRunRecord>,
    /// When a run last ended without a failure.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// The number of runs in a row that failed.
    pub failures: u32,
    /// Its bounds on this file system, of a job under pressure.
    pub bounds: Vec<ResolvedWatermark>,
    /// The bytes that have to become free until its bounds are met, of a job under pressure.
    pub missing_bytes: Option<u64>,
    /// Whether that is all right.
    pub health: Health,
}

/// What a job does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits until it is due.
    Idle,
    /// It is due, and nobody has begun yet.
    Due,
    /// It is running.
    Running,
    /// Its last run failed, and it is tried again later.
    BackingOff,
}

/// Whether a job is all right. Ordered from good to bad.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "level", content = "reason", rename_all = "kebab-case")]
pub enum Health {
    /// It is.
    Ok,
    /// Somebody should look: a clause that says why.
    Warning(String),
    /// Somebody has to look: a clause that says why.
    Critical(String),
}

impl Jobs {
    /// Returns what the jobs are up to. Writes nothing.
    ///
    /// # Errors
    /// Fails if the home cannot be read, or if the file system does not answer.
    pub async fn status(&self) -> MicrosandboxResult<JobsStatus> {
        let now = self.local().now();
        self.check_cache().await?;
        let file_system = self.runner.status().await?;
        let (remembered, home) = (self.remembered().await?, self.home_id().await?);
        let looked_at = self.memory.looked_at(now).await?;
        // A lock that cannot be looked at is nobody's.
        let is_running = JobLock::is_held(self.local().store().catalog().paths()).unwrap_or(false);
        let mut jobs = Vec::new();
        for job in &self.file.jobs {
            let unmet_since = self.unmet_since(job).await?;
            let share = host::share(&home, job.name.as_str());
            let look = Look { job, now, share, file_system, is_running, looked_at, unmet_since };
            jobs.extend(remembered.get(&job.name).map(|remembered| look.status(remembered)));
        }
        Ok(JobsStatus { at: now, file_system, looked_at, jobs })
    }

    /// Returns the end of the first of the last runs in a row that did not meet the goal.
    async fn unmet_since(&self, job: &Job) -> MicrosandboxResult<Option<DateTime<Utc>>> {
        if !matches!(job.trigger, Trigger::Pressure(_)) {
            return Ok(None);
        }
        let runs = self.local().job_runs(Some(&job.name), LOOKED_AT).await?;
        let unmet =
            runs.iter().filter(|run| run.ended_at.is_some()).take_while(|run| run.report.unmet_bytes > 0);
        Ok(unmet.filter_map(|run| run.ended_at).last())
    }
}

/// What a job is looked at with.
struct Look<'a> {
    job: &'a Job,
    now: DateTime<Utc>,
    share: f64,
    file_system: FileSystemStatus,
    is_running: bool,
    looked_at: Option<DateTime<Utc>>,
    unmet_since: Option<DateTime<Utc>>,
}

impl Look<'_> {
    fn status(&self, remembered: &Remembered) -> JobStatus {
        let judged = due(self.job, &remembered.at(self.now, self.share), &self.file_system);
        let state = remembered.state.as_ref();
        let failures = state.map_or(0, |state| state.failures);
        let has_begun = remembered.last.as_ref().is_some_and(|last| last.ended_at.is_none());
        let state_now = match judged {
            _ if self.is_running && has_begun => JobState::Running,
            Due::Now { .. } => JobState::Due,
            Due::At(_) if failures > 0 => JobState::BackingOff,
            Due::At(_) | Due::Unknown => JobState::Idle,
        };
        let (bounds, missing_bytes) = match &self.job.trigger {
            Trigger::Schedule { .. } => (Vec::new(), None),
            Trigger::Pressure(pressure) => {
                let bounds = pressure.watermarks.iter().map(|watermark| watermark.on(&self.file_system));
                (bounds.collect(), Some(pressure.missing_bytes(&self.file_system)))
            }
        };
        let next_at = match (&self.job.trigger, judged) {
            (Trigger::Pressure(_), _) | (_, Due::Unknown) => None,
            (_, Due::Now { .. }) => Some(self.now),
            (_, Due::At(at)) => at,
        };
        JobStatus {
            job: self.job.name.clone(),
            mode: self.job.mode,
            state: state_now,
            next_at,
            last: remembered.last.clone(),
            succeeded_at: state.and_then(|state| state.succeeded_at),
            failures,
            bounds,
            missing_bytes,
            health: self.health(remembered, failures, state_now),
        }
    }

    fn health(&self, remembered: &Remembered, failures: u32, state: JobState) -> Health {
        let last = remembered.last.as_ref();
        let problem =
            last.and_then(|last| last.report.problem.as_deref()).unwrap_or("no reason is on record");
        if failures >= FAILURES {
            return Health::Critical(format!("it failed {failures} times in a row: {problem}"));
        }
        let overdue = match &self.job.trigger {
            Trigger::Schedule { .. } => self.overdue(remembered),
            Trigger::Pressure(pressure) => self.overrun(pressure, state),
        };
        if let Some(reason) = overdue {
            return Health::Critical(reason);
        }
        if failures > 0 {
            return Health::Warning(format!("its last run failed: {problem}"));
        }
        if remembered.state.is_none() {
            return Health::Warning("nobody has looked yet whether it is due".to_owned());
        }
        match last {
            Some(last)
                if last.report.unmet_bytes > 0 && !matches!(self.job.trigger, Trigger::Schedule { .. }) =>
            {
                Health::Warning("its last run did not reach its goal".to_owned())
            }
            Some(last) if last.outcome == Some(JobOutcome::Partial) => {
                Health::Warning(format!("its last run did a part: {problem}"))
            }
            Some(last) if last.ended_at.is_none() && state != JobState::Running => {
                Health::Warning("its last run was killed".to_owned())
            }
            _ => Health::Ok,
        }
    }

    /// Returns why a job with a schedule has not succeeded for too long: it was due twice since.
    fn overdue(&self, remembered: &Remembered) -> Option<String> {
        let Trigger::Schedule { schedule, jitter } = &self.job.trigger else { return None };
        let state = remembered.state.as_ref()?;
        let since = state.succeeded_at.unwrap_or(state.seen_at).max(state.seen_at);
        let first = due::next_time(schedule, *jitter, since, self.share)?;
        let second = due::next_time(schedule, *jitter, first - due::delay(*jitter, self.share), self.share)?;
        (second + GRACE < self.now).then(|| match state.succeeded_at {
            Some(at) => format!("it has not succeeded since {}", schedule.local(at)),
            None => "it has never succeeded".to_owned(),
        })
    }

    /// Returns why a bound is not kept: nobody looks, or what there is to remove is not enough.
    fn overrun(&self, pressure: &Pressure, state: JobState) -> Option<String> {
        let check = TimeDelta::from_std(pressure.check_every).unwrap_or(TimeDelta::MAX);
        let patience = GRACE.max(check.checked_mul(3).unwrap_or(TimeDelta::MAX));
        let nobody = match self.looked_at {
            Some(at) => {
                (self.now - at > patience).then(|| format!("nobody has looked at the file system since {at}"))
            }
            None => Some("nobody has looked at the file system yet".to_owned()),
        };
        if nobody.is_some() && state != JobState::Running {
            return nobody;
        }
        let since = self.unmet_since.filter(|since| self.now - *since >= GRACE)?;
        (pressure.missing_bytes(&self.file_system) > 0)
            .then(|| format!("its goal has not been met since {}", since.to_rfc3339()))
    }
}
