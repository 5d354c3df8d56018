//! Runs a job: its steps in turn, until its goal is met.
//!
//! A job under pressure has a goal, in bytes: what has to become free until every bound is met. Its first step is always
//! what nothing owns. Each step of a policy has what is then still missing as its goal, so that its plan is the
//! shortest prefix of what the policy proposes that frees so much. The file system is asked again after each step: what
//! counts is what became free, not what was planned. A step that fails does not end the job, since the next one may
//! meet the goal.
//!
//! Each step is a plan and its application, with the record and the guarantees of those. A crash between two steps
//! leaves what the first has done.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use super::file::{Job, JobName, Mode, Pressure, Step, Trigger};
use super::watermark::{FileSystemStatus, Quantity};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::plan::{Plan, PlanReport};
use crate::policy::{ByteSize, Guard, Policy, PolicyRun};

type FileSystem = Arc<dyn Fn() -> MicrosandboxResult<FileSystemStatus> + Send + Sync>;

/// Runs jobs on a home.
#[derive(Clone)]
pub struct Runner {
    local: LocalBackend,
    guard: Guard,
    file_system: FileSystem,
}

/// A run that counts, or one that shows what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It does what the job's [`Mode`] says.
    Real,
    /// It plans, and changes nothing.
    DryRun,
}

/// The result of a run of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct JobReport {
    /// The job.
    pub job: JobName,
    /// The file system before the run.
    pub before: FileSystemStatus,
    /// The file system after it.
    pub after: FileSystemStatus,
    /// The bytes that were to become free, of a job under pressure. Zero if its bounds were met before.
    pub goal_bytes: Option<u64>,
    /// The bytes that are still missing; in a run that removes nothing, what its plans would leave missing.
    pub unmet_bytes: u64,
    /// Its steps with their results, in their order. Steps after the goal was met, or after it was stopped, are left out.
    pub steps: Vec<StepReport>,
    /// Set if it was stopped before it was done.
    pub is_stopped: bool,
}

/// The result of a step.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The policy, or absent for what nothing owns.
    pub policy: Option<String>,
    /// The plan, and what became of it unless the run removes nothing.
    pub result: MicrosandboxResult<(Plan, Option<PlanReport>)>,
}

impl Runner {
    /// Makes one for a home, whose file system is that of its cache.
    pub fn new(local: LocalBackend) -> Self {
        let cache = local.cache_dir().to_owned();
        let file_system = Arc::new(move || FileSystemStatus::of(&cache));
        Self { local, guard: Guard::default(), file_system }
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

    /// Runs a job now, whatever its schedule says. `policies` are those of its steps, in their order.
    ///
    /// # Errors
    /// Fails if the file system does not answer, and [`InvalidConfig`](MicrosandboxError::InvalidConfig) if there is not one
    /// policy for each step. What went wrong in a step is in its report.
    pub async fn run(&self, job: &Job, policies: &[Policy], pass: Pass) -> MicrosandboxResult<JobReport> {
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
        policies: &[Policy],
        pass: Pass,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<JobReport> {
        if policies.len() != job.steps.len() {
            let (steps, given) = (job.steps.len(), policies.len());
            let problem =
                format!("the job `{}` needs a policy for each step: {steps}, and not {given}", job.name);
            return Err(MicrosandboxError::InvalidConfig(problem));
        }
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        let before = self.status().await?;
        let applies = pass == Pass::Real && job.mode == Mode::Apply;
        let mut steps: Vec<StepReport> = Vec::new();
        let (pressure, goal_bytes) = match &job.trigger {
            Trigger::Schedule { .. } => (None, None),
            Trigger::Pressure(pressure) => (Some(pressure), Some(missing_bytes(pressure, &before))),
        };
        let mut missing = goal_bytes;
        let mut next = job.steps.iter().zip(policies);
        // What nothing owns goes first, where there is a goal.
        let mut leftovers = pressure.is_some();
        while missing != Some(0) && !stop.is_asked {
            let step = if std::mem::take(&mut leftovers) {
                self.leftovers(applies, &mut stop).await
            } else {
                let Some((step, policy)) = next.next() else { break };
                self.step(step, policy, missing, applies, &mut stop).await
            };
            if let Some(pressure) = pressure {
                missing = Some(match applies {
                    true => missing_bytes(pressure, &self.status().await?),
                    false => missing.unwrap_or_default().saturating_sub(planned(&step, &steps)),
                });
            }
            steps.push(step);
        }
        let after = self.status().await?;
        let unmet_bytes = missing.unwrap_or_default();
        let (job, is_stopped) = (job.name.clone(), stop.is_asked);
        Ok(JobReport { job, before, after, goal_bytes, unmet_bytes, steps, is_stopped })
    }

    async fn status(&self) -> MicrosandboxResult<FileSystemStatus> {
        let status = Arc::clone(&self.file_system);
        blocking("measure the file system", move || status()).await
    }

    /// Removes what nothing owns.
    async fn leftovers(&self, applies: bool, stop: &mut Stop<'_, impl Future<Output = ()>>) -> StepReport {
        let result = async {
            let plan = self.local.plan_leftovers().await?;
            let report = match applies {
                true => Some(self.local.apply_until(&plan, None, stop.asked()).await?),
                false => None,
            };
            Ok((plan, report))
        };
        StepReport { policy: None, result: result.await }
    }

    async fn step(
        &self,
        step: &Step,
        policy: &Policy,
        goal: Option<u64>,
        applies: bool,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> StepReport {
        let mut run = PolicyRun::new(self.local.now())
            .with_config(step.config.clone())
            .with_grant(step.grant.clone())
            .with_guard(&self.guard);
        if let Some(goal) = goal {
            run = run.with_goal(ByteSize::bytes(goal));
        }
        let evaluated = stop.race(self.local.plan_policy(policy, &run)).await;
        let result = match evaluated.unwrap_or(Err(MicrosandboxError::Stopped)) {
            Ok(evaluation) if applies => {
                let cost = Some(evaluation.cost());
                let report = self.local.apply_until(&evaluation.plan, cost, stop.asked()).await;
                report.map(|report| (evaluation.plan, Some(report)))
            }
            Ok(evaluation) => Ok((evaluation.plan, None)),
            Err(error) => {
                if applies {
                    // Where that fails, too, the report still says why there is no plan.
                    let failed = run.failed(policy, error.to_string()).await;
                    if let Err(error) = self.local.record_failure(failed).await {
                        tracing::warn!("the run is not on record: {error}");
                    }
                }
                Err(error)
            }
        };
        StepReport { policy: Some(step.policy.to_string()), result }
    }
}

/// The future that stops a run, which several steps wait for in turn.
struct Stop<'a, F> {
    asked: Pin<&'a mut F>,
    is_asked: bool,
}

impl<F: Future<Output = ()>> Stop<'_, F> {
    /// Completes when the run is to be stopped.
    fn asked(&mut self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if !self.is_asked && self.asked.as_mut().poll(context).is_ready() {
                self.is_asked = true;
            }
            if self.is_asked { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Returns what some work returns, or `None` if it is stopped before.
    async fn race<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
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

/// Returns the bytes that have to become free until every bound is met: the most that one of them lacks. What a bound
/// on inodes lacks is counted as so many files of the average size.
fn missing_bytes(pressure: &Pressure, fs: &FileSystemStatus) -> u64 {
    let missing = pressure.watermarks.iter().map(|watermark| {
        let missing = watermark.on(fs).missing(fs);
        match watermark.quantity {
            Quantity::Free | Quantity::Used => missing,
            Quantity::InodesFree => {
                let used = fs.size_bytes.saturating_sub(fs.available_bytes);
                let files = fs.inodes.saturating_sub(fs.inodes_free).max(1);
                missing.saturating_mul((used / files).max(1))
            }
        }
    });
    missing.max().unwrap_or_default()
}

/// Returns the bytes that a step plans to free, of what no earlier step takes.
fn planned(step: &StepReport, earlier: &[StepReport]) -> u64 {
    let Ok((plan, _)) = &step.result else { return 0 };
    let taken: std::collections::HashSet<&str> = earlier
        .iter()
        .filter_map(|step| step.result.as_ref().ok())
        .flat_map(|(plan, _)| plan.removals().map(|entry| entry.reference.as_str()))
        .collect();
    let again = plan.removals().filter(|entry| taken.contains(entry.reference.as_str()));
    plan.bytes.saturating_sub(again.map(|entry| entry.bytes).sum())
}
