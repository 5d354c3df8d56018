//! The application of a plan: what it is a part of.

use crate::records::RunCost;
use crate::store::removal::Enough;

/// What an application is a part of.
#[derive(Clone, Default)]
pub(crate) struct Application {
    /// The cost of the run of the policy, where it has just run.
    pub(crate) cost: Option<RunCost>,
    /// The job of which it is a step.
    pub(crate) job: Option<String>,
    /// Says after each batch whether enough went, so that the rest of the plan is left.
    pub(crate) enough: Option<Enough>,
}
