//! What a run came to, as far as a scenario can expect it.

use std::fmt;

use larder::policy::{Decision, Plan, PlanEntry, PolicyError, Right};
use serde::{Deserialize, Serialize};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// A plan: what became of each image that the policy could see, newest created first.
    Decisions(Vec<Expected>),
    /// An error, as the operator reads it.
    Fails(String),
}

/// What becomes of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) decision: Decision,
    pub(crate) reference: String,
    pub(crate) reason: String,
    /// Whether it goes although something uses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) force: bool,
    /// The right that the policy lacked when it wanted to remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) denied: Option<Right>,
}

impl Outcome {
    pub(super) fn of_plan(plan: &Plan) -> Self {
        let is_of_removal = |right| !matches!(right, Right::Read | Right::Inspect | Right::Prune);
        let denied = |reference: &str| {
            let denials = plan.denials.iter().filter(|denial| denial.reference.as_deref() == Some(reference));
            denials.map(|denial| denial.right).rfind(|&right| is_of_removal(right))
        };
        let expected = |entry: &PlanEntry| Expected {
            decision: entry.decision,
            reference: entry.reference.clone(),
            reason: entry.reason.clone(),
            force: entry.force,
            denied: denied(&entry.reference).filter(|_| entry.decision == Decision::Keep),
        };
        Self::Decisions(plan.entries.iter().map(expected).collect())
    }

    /// The first line of an error: the functions under it change with every build.
    pub(super) fn of_error(error: &PolicyError) -> Self {
        Self::Fails(error.to_string().lines().next().unwrap_or_default().to_owned())
    }

    /// One line for each decision, or one for the error: what differences are shown in.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Decisions(decisions) => decisions.iter().map(ToString::to_string).collect(),
            Self::Fails(error) => vec![format!("fails: {error}")],
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = match self.decision {
            Decision::Keep => "keep",
            Decision::Remove => "remove",
        };
        let force = if self.force { " (forced)" } else { "" };
        let denied = self.denied.map(|right| format!(" (denied: {})", word(right))).unwrap_or_default();
        write!(f, "{decision} {}{force}{denied}: {}", self.reference, self.reason)
    }
}

/// Returns a right as files and the contract write it.
pub(super) fn word(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Inspect => "inspect",
        Right::Remove => "remove",
        Right::Force => "force",
        Right::Prune => "prune",
        Right::Budget => "budget",
        Right::Protected => "protected",
    }
}
