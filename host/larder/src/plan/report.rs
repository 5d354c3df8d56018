//! The report of an applied plan.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::document::{Decision, Denial, Plan, PlanEntry};
use super::unmatched::UnmatchedPattern;
use crate::records::{ImagePruneReport, PlanPolicy, RecoveredFiles, SpareCause};
use crate::store::removal::{Outcome, RemovedImage, SparedImage};
use crate::units::ByteSize;

/// The result of applying a plan.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PlanReport {
    /// The calls of the policy that were not allowed, as the plan has them.
    pub denials: Vec<Denial>,
    /// The time that it took, in milliseconds.
    pub duration_ms: u64,
    /// The allocated bytes that were to be freed, if the plan has a goal.
    pub goal_bytes: Option<u64>,
    /// References that were to go and were gone already.
    pub gone: Vec<String>,
    /// The images that stayed, as the plan has them.
    pub kept: Vec<ImageVerdict>,
    /// References that were to go and were not got to, because something ended the removal early.
    pub left: Vec<String>,
    /// The policy that decided; absent without one.
    pub policy: Option<PlanPolicy>,
    /// Problems that did not stop the rest: one sentence each.
    pub problems: Vec<String>,
    /// The files of earlier removals that were not finished, and that this change deleted before its own.
    pub recovered: RecoveredFiles,
    /// The images that were removed.
    pub removed: Vec<ImageVerdict>,
    /// The numbers of what was removed. `bytes_reclaimed` is measured.
    pub report: ImagePruneReport,
    /// The number of the record in the home; absent where there was nothing to do.
    pub run: Option<i64>,
    /// The images that were to be removed and were left alone.
    pub spared: Vec<ImageVerdict>,
    /// Patterns of grant and guard that matched no image, as the plan says.
    pub unmatched: Vec<UnmatchedPattern>,
}

/// Whether a removal came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completion {
    /// It got to everything.
    Whole,
    /// Something ended it before.
    Early,
}

/// The result for one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageVerdict {
    /// Allocated bytes that were freed with it.
    pub bytes: u64,
    /// The manifest that the plan saw it name.
    pub manifest_digest: Option<String>,
    /// Why: what the plan says, or why it was spared.
    pub reason: String,
    /// The reference as it stands in the index.
    pub reference: String,
    /// The kind of reason for which it was spared; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spared_by: Option<SpareCause>,
}

impl PlanReport {
    /// A report of a plan of which nothing has been done.
    pub fn of(plan: &Plan) -> Self {
        let kept = plan.entries.iter().filter(|entry| entry.decision == Decision::Keep);
        Self {
            denials: plan.denials.clone(),
            goal_bytes: plan.goal.map(ByteSize::as_bytes),
            kept: kept.map(|entry| verdict(entry, entry.reason.clone(), 0)).collect(),
            policy: plan.policy.clone(),
            unmatched: plan.unmatched.clone(),
            ..Self::default()
        }
    }

    /// Returns whether nothing was deleted.
    pub(super) fn is_empty(&self) -> bool {
        self.report == ImagePruneReport::default() && self.recovered == RecoveredFiles::default()
    }

    /// Adds the outcome of a removal, and the images that were spared before it began.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        spared_before: Vec<SparedImage>,
        outcome: Outcome,
        completion: Completion,
    ) {
        self.report = outcome.report;
        self.problems = outcome.problems;
        self.recovered += outcome.recovered;
        let planned: HashMap<&str, &PlanEntry> =
            plan.entries.iter().map(|entry| (entry.reference.as_str(), entry)).collect();
        self.removed = outcome.removed.into_iter().map(|image| removed(image, &planned)).collect();
        self.spared = spared_before.into_iter().chain(outcome.spared).map(spared).collect();
        if completion == Completion::Early {
            let decided = self.removed.iter().chain(&self.spared).map(|image| image.reference.as_str());
            let settled: HashSet<&str> = decided.chain(self.gone.iter().map(String::as_str)).collect();
            let planned = plan.removals().map(|entry| entry.reference.as_str());
            self.left = planned.filter(|reference| !settled.contains(reference)).map(str::to_owned).collect();
        }
    }
}

fn verdict(entry: &PlanEntry, reason: String, bytes: u64) -> ImageVerdict {
    let (reference, manifest_digest) = (entry.reference.clone(), entry.manifest_digest.clone());
    ImageVerdict { reference, manifest_digest, reason, bytes, spared_by: None }
}

fn removed(image: RemovedImage, planned: &HashMap<&str, &PlanEntry>) -> ImageVerdict {
    let reason = planned.get(image.reference.as_str()).map(|entry| entry.reason.clone()).unwrap_or_default();
    ImageVerdict {
        bytes: image.bytes,
        manifest_digest: image.manifest_digest,
        reason,
        reference: image.reference,
        spared_by: None,
    }
}

fn spared(image: SparedImage) -> ImageVerdict {
    ImageVerdict {
        bytes: 0,
        manifest_digest: image.manifest_digest,
        reason: image.reason.to_string(),
        reference: image.reference,
        spared_by: Some(image.reason.cause()),
    }
}
