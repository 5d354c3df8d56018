//! Runs a job: its steps in turn, until its goal is met.
//!
//! A job under pressure has a goal, in bytes: what has to become free until every bound is met. Its first step is always
//! what nothing owns. Each step of a policy has what is then still missing as its goal, so that its plan is the
//! shortest prefix of what the policy proposes that frees so much ([`step`](super::step)). What counts is what became free
//! on the file system, not what was planned: it is asked after each batch of a removal and after each plan. A step that
//! fails does not end the job, since the next one may meet the goal.
//!
//! Where files went and their space did not become free, the job ends: to remove more would free nothing either
//! ([`stuck`](super::stuck)). A goal that is not met is explained by what holds the used bytes ([`held`](super::held)).
//!
//! Each plan is applied with the record and the guarantees of every plan. A crash between two leaves what the first has
//! done.

use std::collections::HashSet;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::file::{Job, Mode, PolicyName, Pressure, Step, Trigger};
use super::held::{self, Holding};
use super::report::{JobReport, StepReport};
use super::step::StepRun;
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::policy::{Guard, Policy};
use crate::records::{FileSystemStatus, SpareCause};

pub(super) type FileSystem = Arc<dyn Fn() -> MicrosandboxResult<FileSystemStatus> + Send + Sync>;

/// How long files that went may take to become free space.
const PATIENCE: Duration = Duration::from_secs(5);

/// The policies that job files name.
pub trait Policies: Send + Sync {
    /// Loads the policy of this name.
    ///
    /// # Errors
    /// Fails if there is none, or if it cannot be loaded. The step of a job then fails.
    fn load<'a>(
        &'a self,
        name: &'a PolicyName,
    ) -> Pin<Box<dyn Future<Output = MicrosandboxResult<Policy>> + Send + 'a>>;
}

/// Policies that are loaded already, by their names.
impl Policies for std::collections::HashMap<PolicyName, Policy> {
    fn load<'a>(
        &'a self,
        name: &'a PolicyName,
    ) -> Pin<Box<dyn Future<Output = MicrosandboxResult<Policy>> + Send + 'a>> {
        let missing = || MicrosandboxError::InvalidConfig(format!("there is no policy `{name}`"));
        Box::pin(std::future::ready(self.get(name).cloned().ok_or_else(missing)))
    }
}

/// Runs jobs on a home.
#[derive(Clone)]
pub struct Runner {
    pub(super) local: LocalBackend,
    pub(super) guard: Guard,
    pub(super) file_system: FileSystem,
    pub(super) patience: Duration,
}

/// A run that counts, or one that shows what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It does what the job's [`Mode`] says.
    Real,
    /// It plans, and changes nothing.
    DryRun,
}

/// What a run is to reach.
#[derive(Debug, Clone)]
pub(super) enum Aim {
    /// What its policies want.
    Everything,
    /// Free space, until every bound is met.
    Bounds(Pressure),
    /// So many free bytes.
    Room(u64),
}

impl Aim {
    /// Returns the aim of a job by its own trigger.
    pub(super) fn of(job: &Job) -> Self {
        match &job.trigger {
            Trigger::Schedule { .. } => Self::Everything,
            Trigger::Pressure(pressure) => Self::Bounds(pressure.clone()),
        }
    }

    /// Returns the bytes that have to become free; absent without a goal.
    pub(super) fn missing(&self, fs: &FileSystemStatus) -> Option<u64> {
        match self {
            Self::Everything => None,
            Self::Bounds(pressure) => Some(pressure.missing_bytes(fs)),
            Self::Room(bytes) => Some(bytes.saturating_sub(fs.available_bytes)),
        }
    }
}

impl Runner {
    /// Makes one for a home, whose file system is that of its cache.
    pub fn new(local: LocalBackend) -> Self {
        let cache = local.cache_dir().to_owned();
        let file_system = Arc::new(move || FileSystemStatus::of(&cache));
        Self { local, guard: Guard::default(), file_system, patience: PATIENCE }
    }

    /// Returns the same with what this guard keeps, in addition to that of the home.
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Returns the same with another answer about the file system, for tests and simulations.
    #[must_use]
    pub fn with_file_system(
        mut self,
        status: impl Fn() -> MicrosandboxResult<FileSystemStatus> + Send + Sync + 'static,
    ) -> Self {
        self.file_system = Arc::new(status);
        self
    }

    /// Returns the same, waiting so long for files that went to become free space. Default: five seconds, since some file
    /// systems free space later.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs a job now, whatever its schedule says.
    ///
    /// # Errors
    /// Fails if the file system does not answer. What went wrong in a step is in its report.
    pub async fn run(&self, job: &Job, policies: &dyn Policies, pass: Pass) -> MicrosandboxResult<JobReport> {
        self.run_until(job, policies, pass, pending()).await
    }

    /// Runs a job until `stop` completes. A policy that runs then is ended, and of a plan that is being applied the images
    /// that are being removed still go, and no others: as [`LocalBackend::apply_until`] does it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(
        &self,
        job: &Job,
        policies: &dyn Policies,
        pass: Pass,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<JobReport> {
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        self.run_for(job, Aim::of(job), policies, pass, &mut stop).await
    }

    /// Runs a job for an aim.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) async fn run_for<F: Future<Output = ()>>(
        &self,
        job: &Job,
        aim: Aim,
        policies: &dyn Policies,
        pass: Pass,
        stop: &mut Stop<'_, F>,
    ) -> MicrosandboxResult<JobReport> {
        let before = self.status().await?;
        let applies = pass == Pass::Real && job.mode == Mode::Apply;
        let goal_bytes = aim.missing(&before);
        let mut report = JobReport {
            job: job.name.clone(),
            before,
            after: before,
            goal_bytes,
            freed_bytes: 0,
            unmet_bytes: goal_bytes.unwrap_or_default(),
            steps: Vec::new(),
            held: Vec::new(),
            notes: Vec::new(),
            is_stopped: false,
        };
        let mut next = job.steps.iter();
        // What nothing owns goes first, where there is a goal.
        let mut leftovers = goal_bytes.is_some();
        while (goal_bytes.is_none() || report.unmet_bytes > 0) && !stop.is_asked {
            let missing = goal_bytes.map(|_| report.unmet_bytes);
            let run = StepRun { runner: self, job, aim: &aim, applies, missing, before: report.after };
            let step = if std::mem::take(&mut leftovers) {
                run.leftovers(stop).await
            } else {
                let Some(step) = next.next() else { break };
                run.policy(step, policies, stop).await
            };
            let is_stuck = self.count(&mut report, &aim, step, applies).await?;
            if is_stuck {
                break;
            }
        }
        report.after = self.status().await?;
        report.is_stopped = stop.is_asked;
        if report.unmet_bytes > 0 {
            report.held = self.held(job, &report).await.unwrap_or_else(|error| {
                report.notes.push(format!("what holds the rest could not be found out: {error}"));
                Vec::new()
            });
        }
        Ok(report)
    }

    /// Adds a step to a report. Returns whether files went and their space did not become free.
    async fn count(
        &self,
        report: &mut JobReport,
        aim: &Aim,
        step: StepReport,
        applies: bool,
    ) -> MicrosandboxResult<bool> {
        let freed = if applies {
            step.rounds.iter().map(super::report::Round::freed_bytes).sum()
        } else {
            planned(&step, &report.steps)
        };
        report.freed_bytes = report.freed_bytes.saturating_add(freed);
        report.steps.push(step);
        if !applies {
            report.unmet_bytes = report.unmet_bytes.saturating_sub(freed);
            return Ok(false);
        }
        if report.goal_bytes.is_none() {
            return Ok(false);
        }
        let (now, stuck) = self.wait_for_space(&report.before, report.freed_bytes).await?;
        report.after = now;
        if let Some(missing) = aim.missing(&now) {
            report.unmet_bytes = missing;
            if missing > 0
                && let Some(why) = stuck
            {
                report.notes.push(why);
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn status(&self) -> MicrosandboxResult<FileSystemStatus> {
        let status = Arc::clone(&self.file_system);
        blocking("measure the file system", move || status()).await
    }

    /// Finds what holds the used bytes of the file system after a run.
    async fn held(&self, job: &Job, report: &JobReport) -> MicrosandboxResult<Vec<crate::records::Held>> {
        let spared = report.last_of_each_step().flat_map(|report| &report.spared);
        let leased = spared.filter(|image| image.spared_by == Some(SpareCause::Leased));
        let gone = report.rounds().filter(|round| round.report.is_none());
        let holding = Holding {
            grants: job.steps.iter().map(|step: &Step| step.grant.clone()).collect(),
            guard: self.guard.clone(),
            leased: leased.map(|image| image.reference.clone()).collect(),
            gone: gone.flat_map(|round| round.plan.removals()).map(|entry| entry.reference.clone()).collect(),
            gone_files: planned_files(report),
            used_bytes: report.after.used_bytes(),
        };
        let store = Arc::clone(self.local.store());
        blocking("find what holds the space", move || held::find(&store, &holding)).await
    }
}

/// The future that stops a run, which several steps wait for in turn.
pub(super) struct Stop<'a, F> {
    pub(super) asked: Pin<&'a mut F>,
    pub(super) is_asked: bool,
}

impl<F: Future<Output = ()>> Stop<'_, F> {
    /// Completes when the run is to be stopped.
    pub(super) fn asked(&mut self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if !self.is_asked && self.asked.as_mut().poll(context).is_ready() {
                self.is_asked = true;
            }
            if self.is_asked { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Returns what some work returns, or `None` if it is stopped before.
    pub(super) async fn race<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut asked) = (pin!(work), pin!(self.asked()));
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => asked.as_mut().poll(context).map(|()| None),
        })
        .await
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Returns the bytes of the files that nothing owns and that plans delete which were not applied.
fn planned_files(report: &JobReport) -> u64 {
    let plans = report.rounds().filter(|round| round.report.is_none()).map(|round| &round.plan);
    plans.flat_map(|plan| &plan.collect).map(|file| file.bytes).sum()
}

/// Returns the bytes that a step plans to free, of what no earlier step takes.
fn planned(step: &StepReport, earlier: &[StepReport]) -> u64 {
    let plans = |steps: &mut dyn Iterator<Item = &StepReport>| -> HashSet<String> {
        let entries = steps.flat_map(|step| &step.rounds).flat_map(|round| round.plan.removals());
        entries.map(|entry| entry.reference.clone()).collect()
    };
    let taken = plans(&mut earlier.iter());
    let bytes = step.rounds.iter().map(|round| {
        let again = round.plan.removals().filter(|entry| taken.contains(&entry.reference));
        round.plan.bytes.saturating_sub(again.map(|entry| entry.bytes).sum())
    });
    bytes.sum()
}
