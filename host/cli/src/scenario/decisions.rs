//! What a run came to, as far as a scenario can expect it.

use std::fmt;

use larder::policy::{Decision, Plan, PlanEntry, PolicyError, Right};
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, refused_config};

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// A plan: what became of each image that the policy could see, newest created first.
    Decisions(Vec<Expected>),
    /// No plan.
    Fails(Failed),
}

/// The failure of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failed {
    pub(super) kind: FailureKind,
    /// The sentence of the policy or of the host. Any sentence will do where none is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) says: Option<String>,
}

/// A kind of failure, as the program writes it in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FailureKind {
    InvalidConfig,
    InvalidDescription,
    OverBudget,
    PolicyFailed,
    PolicyLimit,
    PolicyTrapped,
}

impl FailureKind {
    /// Returns the kind as files and JSON write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InvalidConfig => "invalid-config",
            Self::InvalidDescription => "invalid-description",
            Self::OverBudget => "over-budget",
            Self::PolicyFailed => "policy-failed",
            Self::PolicyLimit => "policy-limit",
            Self::PolicyTrapped => "policy-trapped",
        }
    }

    /// Returns whether the sentence is the policy's own.
    pub(super) fn is_of_policy(self) -> bool {
        matches!(self, Self::InvalidConfig | Self::PolicyFailed)
    }
}

/// What becomes of one image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) decision: Decision,
    pub(crate) reference: String,
    /// Any reason will do where none is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
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
            reason: Some(entry.reason.clone()),
            force: entry.force,
            denied: denied(&entry.reference).filter(|_| entry.decision == Decision::Keep),
        };
        Self::Decisions(plan.entries.iter().map(expected).collect())
    }

    /// Returns the outcome of a run that failed, or the error itself where that says nothing about the policy. Of an error
    /// it has the first line: the functions under it change with every build. Of a config that was refused it has no name of
    /// the policy: the same policy in another language has another one.
    pub(super) fn of_error(error: PolicyError) -> Result<Self, Failure> {
        let says = match &error {
            PolicyError::Failed(sentence) => refused_config(sentence).unwrap_or(sentence).to_owned(),
            error => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let failure = Failure::from(error);
        match FailureKind::deserialize(failure.kind().into_deserializer()) as Result<_, ValueError> {
            Ok(kind) => Ok(Self::Fails(Failed { kind, says: Some(says) })),
            Err(_) => Err(failure),
        }
    }

    /// Returns whether this, which was seen, is what was expected.
    pub(crate) fn meets(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Decisions(seen), Self::Decisions(expected)) => {
                seen.len() == expected.len()
                    && seen.iter().zip(expected).all(|(seen, expected)| seen.meets(expected))
            }
            (Self::Fails(seen), Self::Fails(expected)) => {
                seen.kind == expected.kind && is_met(&expected.says, &seen.says)
            }
            _ => false,
        }
    }

    /// One line for each decision, or one for the error: what differences are shown in.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Decisions(decisions) => decisions.iter().map(ToString::to_string).collect(),
            Self::Fails(Failed { kind, says: None }) => vec![format!("fails: {}", kind.word())],
            Self::Fails(Failed { kind, says: Some(says) }) => vec![format!("fails: {}: {says}", kind.word())],
        }
    }
}

impl Expected {
    fn meets(&self, expected: &Self) -> bool {
        (self.decision, &self.reference, self.force, self.denied)
            == (expected.decision, &expected.reference, expected.force, expected.denied)
            && is_met(&expected.reason, &self.reason)
    }
}

/// Returns whether a sentence is the expected one, if any is.
fn is_met(expected: &Option<String>, seen: &Option<String>) -> bool {
    expected.is_none() || expected == seen
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = match self.decision {
            Decision::Keep => "keep",
            Decision::Remove => "remove",
        };
        let force = if self.force { " (forced)" } else { "" };
        let denied = self.denied.map(|right| format!(" (denied: {})", word(right))).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        write!(f, "{decision} {}{force}{denied}{reason}", self.reference)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Files name a failure by the kind that the program gives it in JSON, and have the policy's own sentence.
    #[test]
    fn failures() {
        let kinds = [
            (PolicyError::Failed("no".into()), FailureKind::PolicyFailed, "no"),
            (PolicyError::Failed("config of a: no".into()), FailureKind::InvalidConfig, "no"),
            (
                PolicyError::InvalidDescription { field: "name", problem: "is too long".into() },
                FailureKind::InvalidDescription,
                "",
            ),
            (PolicyError::OverBudget(Vec::new()), FailureKind::OverBudget, ""),
            (
                PolicyError::Limit { limit: "time", value: "5s".into(), meaning: "" },
                FailureKind::PolicyLimit,
                "",
            ),
            (
                PolicyError::Trapped { during: "evaluate", cause: "x".into(), backtrace: Vec::new() },
                FailureKind::PolicyTrapped,
                "",
            ),
        ];
        for (error, kind, sentence) in kinds {
            let Ok(Outcome::Fails(failed)) = Outcome::of_error(error) else { panic!("{kind:?}") };
            assert_eq!(failed.kind, kind);
            assert_eq!(serde_json::to_value(kind).expect("a text"), kind.word());
            assert!(failed.says.is_some_and(|says| !kind.is_of_policy() || says == sentence), "{kind:?}");
        }
        assert!(Outcome::of_error(PolicyError::NoCodeCache).is_err());
    }
}
