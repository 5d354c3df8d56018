//! Jobs at work on a home: what is due runs, one at a time.
//!
//! [`Jobs`] is a job file, a home and the policies that the file names. A service calls [`tick`](Jobs::tick) in a loop, a
//! timer once: both run what is due. [`run`](Jobs::run) runs a job at once, whether or not it is due, and
//! [`make_room`](Jobs::make_room) those that make room for a pull or load.
//!
//! # Locking
//! One job runs at a time in a home, whoever runs it: a `flock` on the home, which ends with the process. Whether a job is
//! due is decided under it, so that two services never run one twice. Nobody waits for it inside: who finds it taken gets
//! an answer that says so.
//!
//! # What survives a crash
//! What is remembered of jobs is in the home (`catalog/jobs/`): when they ran, and up to when the times of their schedules
//! are done with. So a restart makes nothing run, and what was missed meanwhile is one late run. A run that was killed
//! settled nothing: it is due again. On a full disk, what cannot be written is kept in the process.

mod due;
mod memory;
mod room;
mod status;

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

pub use room::RoomMade;
pub use status::{Health, JobState, JobStatus, JobsStatus};

use self::due::{Due, due};
use self::memory::{Memory, Remembered};
use super::file::{Job, JobFile, JobName, Trigger};
use super::report::JobReport;
use super::runner::{Aim, Pass, Policies, Runner, Stop};
use crate::backend::LocalBackend;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{JobLock, host};
use crate::records::{FileSystemSample, FileSystemStatus, JobCause, JobRunRecord};

/// The longest time between two looks. It bounds how late is noticed that a clock was changed.
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(1);
/// The time between two records of how images were used.
const RECORD_EVERY: TimeDelta = TimeDelta::minutes(1);
/// The time between two records of the file system.
const SAMPLE_EVERY: TimeDelta = TimeDelta::minutes(5);

/// A job file at work on a home.
pub struct Jobs {
    file: Arc<JobFile>,
    policies: Arc<dyn Policies>,
    runner: Runner,
    memory: Arc<Memory>,
    /// When something was recorded last.
    recorded: Arc<Mutex<Recorded>>,
}

/// When something was recorded last by this process.
#[derive(Debug, Clone, Copy, Default)]
struct Recorded {
    uses: Option<DateTime<Utc>>,
    sample: Option<DateTime<Utc>>,
}

/// A run of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct JobRun {
    /// The run as it is on record. Of a dry run, and where the home has no room for a record, its number is zero.
    pub record: JobRunRecord,
    /// What it did, or why it could not begin.
    pub report: MicrosandboxResult<JobReport>,
}

/// What a look at the jobs came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Tick {
    /// The runs of the jobs that were due, in this order: those under pressure first.
    pub ran: Vec<JobRun>,
    /// Set if a job is due and another one is running, of this process or another: it runs with a later look.
    pub is_busy: bool,
    /// When to look again, at the latest.
    pub next_at: DateTime<Utc>,
    /// The state of the file system before the runs.
    pub file_system: FileSystemStatus,
    /// What went wrong besides the runs, and stopped nothing: one sentence each.
    pub problems: Vec<String>,
}

impl Jobs {
    /// Puts a job file to work on a home. Runs nothing yet.
    pub fn new(local: LocalBackend, file: JobFile, policies: Arc<dyn Policies>) -> Self {
        let runner = Runner::new(local.clone()).with_guard(file.guard.clone());
        Self {
            file: Arc::new(file),
            policies,
            runner,
            memory: Arc::new(Memory::new(local)),
            recorded: Arc::default(),
        }
    }

    /// Returns the same with another answer about the file system, for tests and simulations.
    #[must_use]
    pub fn with_file_system(
        mut self,
        status: impl Fn() -> MicrosandboxResult<FileSystemStatus> + Send + Sync + 'static,
    ) -> Self {
        self.runner = self.runner.with_file_system(status);
        self
    }

    /// Returns another job file at work on the same home. What is remembered of jobs of the same names stays.
    #[must_use]
    pub fn with_file(&self, file: JobFile, policies: Arc<dyn Policies>) -> Self {
        Self {
            runner: self.runner.clone().with_guard(file.guard.clone()),
            file: Arc::new(file),
            policies,
            memory: Arc::clone(&self.memory),
            recorded: Arc::clone(&self.recorded),
        }
    }

    /// Returns the job file.
    pub fn file(&self) -> &JobFile {
        &self.file
    }

    /// Looks at the jobs: runs each one that is due, and records how images were used. Jobs that fail stop no other.
    /// `stop` ends a run as [`LocalBackend::apply_until`] does it, and no other begins.
    ///
    /// # Errors
    /// Fails if the home cannot be read, or if the file system does not answer.
    pub async fn tick(&self, stop: impl Future<Output = ()>) -> MicrosandboxResult<Tick> {
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        let now = self.local().now();
        self.check_cache().await?;
        let file_system = self.runner.status().await?;
        let problems = self.record(now, &file_system).await;
        let mut tick =
            Tick { ran: Vec::new(), is_busy: false, next_at: now + LONGEST_WAIT, file_system, problems };
        let (mut lock, mut again) = (None, Vec::new());
        // Each job at most once: one that is due again at once is due with the next look.
        let mut left: Vec<&Job> = self.by_urgency();
        while !left.is_empty() && !stop.is_asked {
            let Some(found) = self.first_due(&left, &mut tick).await? else { break };
            if lock.is_none() {
                lock = self.lock()?;
                if lock.is_none() {
                    tick.is_busy = true;
                    break;
                }
                // Whoever had it before may have run the job.
                continue;
            }
            let FoundDue { place, cause, settles } = found;
            let job = left.remove(place);
            tick.ran.push(self.run_now(job, Aim::of(job), cause, settles, &mut stop).await?);
            if let Trigger::Pressure(pressure) = &job.trigger {
                again.push(TimeDelta::from_std(pressure.check_every).unwrap_or(LONGEST_WAIT));
            }
        }
        let now = self.local().now();
        tick.next_at = again.into_iter().map(|wait| now + wait).fold(tick.next_at, DateTime::min);
        Ok(tick)
    }

    /// Runs a job at once, whether or not it is due. Returns `None` if another job is running, of this process or another.
    ///
    /// # Errors
    /// [`InvalidConfig`](MicrosandboxError::InvalidConfig) if the file has no job of this name. Fails if the home cannot be
    /// written. What goes wrong in the run is in its report.
    pub async fn run(
        &self,
        name: &JobName,
        pass: Pass,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<Option<JobRun>> {
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        let missing = || MicrosandboxError::InvalidConfig(format!("there is no job `{name}`"));
        let job = self.file.jobs.iter().find(|job| job.name == *name).ok_or_else(missing)?;
        if pass == Pass::DryRun {
            let started_at = self.local().now();
            let report = self.runner.run_for(job, Aim::of(job), &*self.policies, pass, &mut stop).await?;
            let record = JobRunRecord {
                id: 0,
                job: name.clone(),
                cause: JobCause::Manual,
                mode: job.mode,
                started_at,
                ended_at: Some(self.local().now()),
                outcome: Some(report.outcome()),
                report: report.to_record(),
            };
            return Ok(Some(JobRun { record, report: Ok(report) }));
        }
        let Some(_lock) = self.lock()? else { return Ok(None) };
        self.run_now(job, Aim::of(job), JobCause::Manual, None, &mut stop).await.map(Some)
    }

    /// Runs a job under the lock, with its record.
    async fn run_now<F: Future<Output = ()>>(
        &self,
        job: &Job,
        aim: Aim,
        cause: JobCause,
        settles: Option<DateTime<Utc>>,
        stop: &mut Stop<'_, F>,
    ) -> MicrosandboxResult<JobRun> {
        let begun = self.memory.begin(job, cause).await?;
        let report = self.runner.run_for(job, aim, &*self.policies, Pass::Real, stop).await;
        let record = self.memory.end(job, begun, &report, settles).await?;
        if let Ok(report) = &report {
            let sample = FileSystemSample { at: self.local().now(), status: report.after };
            if let Err(error) = self.memory.sample(sample).await {
                tracing::warn!("the state of the file system could not be recorded: {error}");
            }
        }
        Ok(JobRun { record, report })
    }

    /// Finds the first of these jobs that is due, and notes when to look at the others.
    async fn first_due(&self, jobs: &[&Job], tick: &mut Tick) -> MicrosandboxResult<Option<FoundDue>> {
        let now = self.local().now();
        let fs = self.runner.status().await?;
        let remembered = self.memory.of(jobs.iter().map(|job| job.name.clone()).collect()).await?;
        let home = self.home_id().await?;
        tick.next_at = now + LONGEST_WAIT;
        for (place, job) in jobs.iter().enumerate() {
            let share = host::share(&home, job.name.as_str());
            let Some(remembered) = remembered.get(&job.name) else { continue };
            let judged = match due(job, &remembered.at(now, share), &fs) {
                Due::Unknown => {
                    self.memory.see(job, now).await?;
                    let seen = self.memory.of(vec![job.name.clone()]).await?;
                    seen.get(&job.name).map_or(Due::At(None), |seen| due(job, &seen.at(now, share), &fs))
                }
                judged => judged,
            };
            match judged {
                Due::Now { cause, settles } => return Ok(Some(FoundDue { place, cause, settles })),
                Due::At(Some(at)) => tick.next_at = tick.next_at.min(at),
                Due::At(None) | Due::Unknown => {}
            }
        }
        Ok(None)
    }

    /// Records how images were used and the state of the file system, if that was not done lately. Returns what went wrong.
    async fn record(&self, now: DateTime<Utc>, status: &FileSystemStatus) -> Vec<String> {
        let last = *self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back makes the last time one to come.
        let is_old = |last: Option<DateTime<Utc>>, every: TimeDelta| {
            last.is_none_or(|last| now - last >= every || last > now)
        };
        let (mut done, mut problems) = (last, Vec::new());
        if is_old(last.uses, RECORD_EVERY) {
            done.uses = Some(now);
            if let Err(error) = self.local().record_uses().await {
                problems.push(format!("how images were used could not be recorded: {error}"));
            }
        }
        if is_old(last.sample, SAMPLE_EVERY) {
            done.sample = Some(now);
            let sample = FileSystemSample { at: now, status: *status };
            if let Err(error) = self.memory.sample(sample).await {
                problems.push(format!("the state of the file system could not be recorded: {error}"));
            }
        }
        *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = done;
        problems
    }

    /// Returns the jobs, those under pressure first.
    fn by_urgency(&self) -> Vec<&Job> {
        let mut jobs: Vec<&Job> = self.file.jobs.iter().collect();
        jobs.sort_by_key(|job| matches!(job.trigger, Trigger::Schedule { .. }));
        jobs
    }

    /// Takes the lock of jobs, or returns `None` if another job is running.
    fn lock(&self) -> MicrosandboxResult<Option<JobLock>> {
        let paths = self.local().store().catalog().paths();
        JobLock::try_take(paths).map_err(MicrosandboxError::io("lock", &paths.home))
    }

    /// Checks that the cache is there: without it, the file system that would be measured is another one.
    async fn check_cache(&self) -> MicrosandboxResult<()> {
        let store = Arc::clone(self.local().store());
        self.local().store().read("look for the cache", move |index| store.check_cache(index)).await
    }

    async fn home_id(&self) -> MicrosandboxResult<String> {
        Ok(self.local().identity().await?.id.map(|id| id.to_string()).unwrap_or_default())
    }

    fn local(&self) -> &LocalBackend {
        &self.runner.local
    }

    async fn remembered(&self) -> MicrosandboxResult<std::collections::HashMap<JobName, Remembered>> {
        self.memory.of(self.file.jobs.iter().map(|job| job.name.clone()).collect()).await
    }
}

/// A job that is due.
struct FoundDue {
    /// Its place among those that were looked at.
    place: usize,
    cause: JobCause,
    settles: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("runner", &self.runner).field("file", &self.file).finish_non_exhaustive()
    }
}
