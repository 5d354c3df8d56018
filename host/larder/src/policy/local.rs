//! Policies on a home.

use super::{Evaluation, Policy, PolicyRun};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;

impl LocalBackend {
    /// Runs a policy on one state of the cache, and returns the plan that comes of it. Writes nothing.
    ///
    /// # Errors
    /// [`MicrosandboxError::Policy`](crate::MicrosandboxError::Policy) where the run ended without a plan, or where the
    /// home cannot be read.
    pub async fn plan_policy(&self, policy: &Policy, run: &PolicyRun) -> MicrosandboxResult<Evaluation> {
        let mut snapshot = self.snapshot().await?;
        let (policy, run) = (policy.clone(), run.clone());
        blocking("run a policy", move || {
            let home = snapshot.home()?;
            let mut evaluation = policy.evaluate(snapshot, &run)?;
            evaluation.plan.home = home;
            Ok(evaluation)
        })
        .await
    }
}
