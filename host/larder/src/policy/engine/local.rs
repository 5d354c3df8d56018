//! Policies on a home.

use std::sync::Arc;

use super::component::Policy;
use super::run::Evaluation;
use super::thread::on_own_thread;
use crate::backend::LocalBackend;
use crate::error::MicrosandboxResult;
use crate::home::HomeIdentity;
use crate::plan::{FailedRun, Plan, PlanPolicy, RunCost, guard};
use crate::policy::grant::Guard;
use crate::policy::session::Session;
use crate::policy::session::parameters::PolicyRun;
use crate::snapshot::CacheSnapshot as _;
use crate::store::Store;
use crate::store::snapshot::HomeSnapshot;
use crate::units::ByteSize;

impl Evaluation {
    /// Returns the cost of the run, for the record of it ([`LocalBackend::apply_run`]).
    pub fn cost(&self) -> RunCost {
        let duration_ms = self.stats.duration.as_micros().div_ceil(1000);
        RunCost { duration_ms: u64::try_from(duration_ms).unwrap_or(u64::MAX), fuel: self.stats.fuel }
    }
}

impl LocalBackend {
    /// Runs a policy on one state of the cache, on a thread of its own, and returns the plan that results. Writes
    /// nothing.
    ///
    /// The state, and what the guard of this home keeps ([`guard`](Self::guard)) in addition to what the run itself
    /// keeps, are those of the moment at which the policy is compiled and the run begins. Dropping the future ends the
    /// guest with the next tick of the clock, and then closes the state.
    ///
    /// # Errors
    /// [`MicrosandboxError::Policy`](crate::MicrosandboxError::Policy) where the run ended without a plan, or where the
    /// home cannot be read.
    pub async fn plan_policy(&self, policy: &Policy, run: &PolicyRun) -> MicrosandboxResult<Evaluation> {
        Ok(self.propose(policy, run).await?.0)
    }

    /// Does what [`plan_policy`](Self::plan_policy) does, and also returns all that the policy staged.
    ///
    /// # Errors
    /// As [`plan_policy`](Self::plan_policy).
    pub(crate) async fn propose(
        &self,
        policy: &Policy,
        run: &PolicyRun,
    ) -> MicrosandboxResult<(Evaluation, Proposals)> {
        let (store, policy, run) = (Arc::clone(self.store()), policy.clone(), run.clone());
        on_own_thread(move |cancellation| {
            let ready = policy.ready(&run, cancellation)?;
            let (mut snapshot, guard) = open(&store)?;
            let home = snapshot.home()?;
            let run = run.with_guard(&guard);
            let keep = |mut session: Session| {
                session.close();
                Ok(session)
            };
            let (mut evaluation, session) = ready.evaluate_and(Box::new(snapshot), &run, keep)?;
            evaluation.plan.home = home.clone();
            Ok((evaluation, Proposals { session, run, home }))
        })
        .await
    }
}

/// What a policy staged in a run with a goal, of which more can be planned than the goal took.
pub(crate) struct Proposals {
    session: Session,
    run: PolicyRun,
    home: Option<HomeIdentity>,
}

impl Proposals {
    /// Returns the plan for another goal, of the same policy.
    ///
    /// # Errors
    /// [`PolicyError::OverBudget`](crate::policy::PolicyError::OverBudget) if it goes past a cap.
    pub(crate) fn plan(&mut self, policy: PlanPolicy, goal: ByteSize) -> MicrosandboxResult<Plan> {
        self.session.set_goal(goal);
        self.run = self.run.clone().with_goal(goal);
        let plan = self.session.plan(policy, &self.run)?;
        Ok(Plan { home: self.home.clone(), ..plan })
    }
}

impl PolicyRun {
    /// Returns the record of this run of a policy, which made no plan for this reason.
    pub async fn failed(&self, policy: &Policy, problem: impl Into<String>) -> FailedRun {
        let mut failed = FailedRun::new(problem);
        failed.policy = policy.identity().await.ok();
        failed.config = self.config().clone();
        failed.grant = self.grant().cloned();
        failed
    }
}

/// Opens the current state of a home, and reads its guard.
pub(crate) fn open(store: &Arc<Store>) -> MicrosandboxResult<(HomeSnapshot, Guard)> {
    let guard = guard::of_home(store)?;
    Ok((HomeSnapshot::open(store)?, guard))
}
