//! Plans: what is to be removed, decided on one snapshot, shown to a person or not, and applied.
//!
//! There is one way to remove: a [`Plan`], and [`LocalBackend::apply`](crate::LocalBackend::apply). A dry run is a plan
//! that is not applied.
//!
//! - [`document`](Plan): the plan as a JSON document
//! - [`LocalBackend::plan_prune`](crate::LocalBackend::plan_prune): all that nothing uses
//! - [`LocalBackend::plan_remove`](crate::LocalBackend::plan_remove): images by their names
//! - [`LocalBackend::plan_repair`](crate::LocalBackend::plan_repair): files that nothing owns, as a verification found
//!   them
//! - [`LocalBackend::apply`](crate::LocalBackend::apply): doing what a plan says, as far as it still holds
//! - [`Guard`], [`LocalBackend::guard`](crate::LocalBackend::guard): what stays, whoever decides
//! - [`LocalBackend::history`](crate::LocalBackend::history), [`explain`](crate::LocalBackend::explain): what runs did
//! - [`LocalBackend::overview`](crate::LocalBackend::overview): the cache by repository
//! - [`LocalBackend::usage`](crate::LocalBackend::usage): what a prune would free, in numbers
//!
//! # Locking
//! Planning holds a read transaction and no lock. Applying takes leases and the writer batch by batch.
//!
//! # What survives a crash
//! A plan is a value until it is written somewhere. What an interrupted application removed stays removed, and is on
//! record; what it had not begun stays.

mod application;
mod apply;
mod document;
pub(crate) mod guard;
mod history;
mod overview;
mod prune;
mod recheck;
mod record;
mod remove;
mod repair;
mod report;
pub(crate) mod unmatched;
mod usage;

#[cfg(feature = "policy")]
pub(crate) use application::Application;
pub use apply::PlanProgress;
pub use document::{
    Decision, Denial, LogLevel, LogLine, Plan, PlanEntry, Right, Uncollected, UnreachedRow,
    VERSION as PLAN_VERSION,
};
pub use history::Explanation;
pub use overview::{Overview, RepositoryUsage};
pub use record::FailedRun;
pub use remove::PlannedRemoval;
pub use report::{ImageVerdict, PlanReport};
pub use unmatched::{PatternList, UnmatchedPattern};
pub use usage::Usage;

pub use crate::catalog::decisions::{RunDecision, RunDecisions};
pub use crate::catalog::history::{DecisionRecord, RunRecord, RunState, Verdict};
pub use crate::catalog::journal::UseRecord;
pub use crate::records::{Guard, Maker, PlanPolicy, RecoveredFiles, RunCost, SpareCause, UnreachedKind};

/// A number of rows, as reports have it.
fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
