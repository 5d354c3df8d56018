//! Policies on a home.

use super::{Evaluation, Policy, PolicyRun};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::plan::RunCost;

impl Evaluation {
    /// Returns what it took, as it goes on record ([`LocalBackend::apply_run`]).
    pub fn cost(&self) -> RunCost {
        let duration_ms = self.stats.duration.as_micros().div_ceil(1000);
        RunCost { duration_ms: u64::try_from(duration_ms).unwrap_or(u64::MAX), fuel: self.stats.fuel }
    }
}

impl LocalBackend {
    /// Runs a policy on one state of the cache, and returns the plan that comes of it. Writes nothing.
    ///
    /// What the guard of this home keeps ([`guard`](Self::guard)) stays, in addition to what the run itself keeps.
    ///
    /// # Errors
    /// [`MicrosandboxError::Policy`](crate::MicrosandboxError::Policy) where the run ended without a plan, or where the
    /// home cannot be read.
    pub async fn plan_policy(&self, policy: &Policy, run: &PolicyRun) -> MicrosandboxResult<Evaluation> {
        let mut snapshot = self.snapshot().await?;
        let (policy, run) = (policy.clone(), run.clone().with_guard(&self.guard().await?));
        blocking("run a policy", move || {
            let home = snapshot.home()?;
            let mut evaluation = policy.evaluate(snapshot, &run)?;
            evaluation.plan.home = home;
            Ok(evaluation)
        })
        .await
    }
}
