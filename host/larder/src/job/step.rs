//! A step of a job: a plan, and its application, until enough went.
//!
//! A policy runs once in a step. If what its plan removed is not enough, since images were spared or something else wrote
//! to the file system meanwhile, more of what it staged is planned: the shortest prefix that frees what is still missing
//! beyond the last one. What was spared is tried again with it, and the caps count for all of it.

use std::sync::Arc;

use super::file::{Job, Step};
use super::report::{Round, StepReport};
use super::runner::{Aim, Policies, Runner, Stop};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::plan::{Application, Plan, RunCost};
use crate::policy::{ByteSize, Evaluation, Policy, PolicyRun, Proposals};
use crate::records::FileSystemStatus;
use crate::store::removal::Enough;

/// What a step is run with.
pub(super) struct StepRun<'a> {
    pub(super) runner: &'a Runner,
    pub(super) job: &'a Job,
    pub(super) aim: &'a Aim,
    /// Whether plans are applied.
    pub(super) applies: bool,
    /// The bytes that are missing; absent without a goal.
    pub(super) missing: Option<u64>,
    /// The file system when the step begins.
    pub(super) before: FileSystemStatus,
}

impl StepRun<'_> {
    /// Removes what nothing owns.
    pub(super) async fn leftovers(&self, stop: &mut Stop<'_, impl Future<Output = ()>>) -> StepReport {
        let mut report = StepReport { policy: None, rounds: Vec::new(), error: None };
        match self.runner.local.plan_leftovers().await {
            Ok(plan) => report.error = self.apply(plan, None, &mut report.rounds, stop).await.err(),
            Err(error) => report.error = Some(error),
        }
        report
    }

    /// Runs a policy and removes what it proposes.
    pub(super) async fn policy(
        &self,
        step: &Step,
        policies: &dyn Policies,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> StepReport {
        let mut report =
            StepReport { policy: Some(step.policy.to_string()), rounds: Vec::new(), error: None };
        let mut run = PolicyRun::new(self.runner.local.now())
            .with_config(step.config.clone())
            .with_grant(step.grant.clone())
            .with_guard(&self.runner.guard);
        if let Some(missing) = self.missing {
            run = run.with_goal(ByteSize::bytes(missing));
        }
        let policy = match policies.load(&step.policy).await {
            Ok(policy) => policy,
            Err(error) => {
                report.error = Some(error);
                return report;
            }
        };
        report.error = self.rounds(&policy, &run, &mut report.rounds, stop).await.err();
        report
    }

    /// Runs a policy. Where that fails, the run goes on record, so that it can be explained that nothing went.
    async fn propose(
        &self,
        policy: &Policy,
        run: &PolicyRun,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> MicrosandboxResult<(Evaluation, Proposals)> {
        let proposed = stop.race(self.runner.local.propose(policy, run)).await;
        let error = match proposed.unwrap_or(Err(MicrosandboxError::Stopped)) {
            Err(error) if self.applies => error,
            proposed => return proposed,
        };
        let mut failed = run.failed(policy, error.to_string()).await;
        failed.job = Some(self.job.name.to_string());
        // Where that fails, too, the report still says why there is no plan.
        if let Err(error) = self.runner.local.record_failure(failed).await {
            tracing::warn!("the run is not on record: {error}");
        }
        Err(error)
    }

    /// Plans and applies until enough went, or until the policy has nothing more.
    async fn rounds(
        &self,
        policy: &Policy,
        run: &PolicyRun,
        rounds: &mut Vec<Round>,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> MicrosandboxResult<()> {
        let (evaluation, mut proposals) = self.propose(policy, run, stop).await?;
        let (mut cost, mut plan) = (Some(evaluation.cost()), evaluation.plan);
        loop {
            let (bytes, removals, identity) = (plan.bytes, plan.removals().count(), plan.policy.clone());
            self.apply(plan, cost.take(), rounds, stop).await?;
            let (true, Some(_), Some(identity)) = (self.applies, self.missing, identity) else {
                return Ok(());
            };
            let freed = rounds.iter().map(Round::freed_bytes).sum();
            let (now, stuck) = self.runner.wait_for_space(&self.before, freed).await?;
            let missing = self.aim.missing(&now).unwrap_or_default();
            if missing == 0 || removals == 0 || stuck.is_some() {
                return Ok(());
            }
            plan = proposals.plan(identity, ByteSize::bytes(bytes.saturating_add(missing)))?;
            if plan.removals().count() == removals {
                return Ok(());
            }
        }
    }

    /// Applies a plan, if plans are applied, and adds it to the rounds, whatever becomes of it.
    async fn apply(
        &self,
        plan: Plan,
        cost: Option<RunCost>,
        rounds: &mut Vec<Round>,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> MicrosandboxResult<()> {
        if !self.applies {
            rounds.push(Round { plan, report: None });
            return Ok(());
        }
        let application = Application { cost, job: Some(self.job.name.to_string()), enough: self.enough() };
        let (report, error) = match self.runner.local.apply_as(&plan, application, stop.asked()).await {
            Ok(report) => (Some(report), None),
            Err(MicrosandboxError::Incomplete { report, source }) => (Some(*report), Some(*source)),
            Err(error) => (None, Some(error)),
        };
        if report.is_some() {
            rounds.push(Round { plan, report });
        }
        error.map_or(Ok(()), Err)
    }

    /// Returns what says after a batch whether the goal is met.
    fn enough(&self) -> Option<Enough> {
        self.missing?;
        let (status, aim) = (Arc::clone(&self.runner.file_system), self.aim.clone());
        Some(Arc::new(move || status().is_ok_and(|fs| aim.missing(&fs) == Some(0))))
    }
}
