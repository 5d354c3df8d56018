//! What a run of a job did.

use std::collections::HashSet;

use super::file::JobName;
use crate::error::MicrosandboxError;
use crate::plan::{Plan, PlanReport};
use crate::policy::PolicyError;
use crate::records::{FileSystemStatus, Held, JobOutcome, JobRunReport};

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
    /// The allocated bytes of the files that are gone, or in a run that removes nothing, would be.
    pub freed_bytes: u64,
    /// The bytes that are still missing; in a run that removes nothing, what its plans would leave missing.
    pub unmet_bytes: u64,
    /// Its steps with their results, in their order. Steps after the goal was met, or after it was stopped, are left out.
    pub steps: Vec<StepReport>,
    /// What holds the used bytes of the file system, if bytes are missing. They add up to the used bytes.
    pub held: Vec<Held>,
    /// What somebody should know: one sentence each.
    pub notes: Vec<String>,
    /// Set if it was stopped before it was done.
    pub is_stopped: bool,
}

/// The result of a step.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The policy, or absent for what nothing owns.
    pub policy: Option<String>,
    /// Its plans in turn. There is more than one if what the first removed was not enough, since images were spared.
    pub rounds: Vec<Round>,
    /// What ended it before it was complete.
    pub error: Option<MicrosandboxError>,
}

/// A plan of a step.
#[derive(Debug)]
#[non_exhaustive]
pub struct Round {
    /// The plan. The plan of a later round has what earlier ones removed as well.
    pub plan: Plan,
    /// What became of it, unless the run removes nothing.
    pub report: Option<PlanReport>,
}

impl JobReport {
    /// Returns the references that went, or would go.
    pub fn removed(&self) -> HashSet<&str> {
        let mut removed = HashSet::new();
        for round in self.rounds() {
            match &round.report {
                Some(report) => removed.extend(report.removed.iter().map(|image| image.reference.as_str())),
                None => removed.extend(round.plan.removals().map(|entry| entry.reference.as_str())),
            }
        }
        removed
    }

    /// Returns what became of the run.
    pub fn outcome(&self) -> JobOutcome {
        let freed_nothing = self.freed_bytes == 0 && self.removed().is_empty();
        let errors: Vec<&MicrosandboxError> =
            self.steps.iter().filter_map(|step| step.error.as_ref()).collect();
        if self.is_stopped || (!errors.is_empty() && !freed_nothing) {
            return JobOutcome::Partial;
        }
        if let Some(error) = errors.first() {
            return if is_refusal(error) { JobOutcome::Refused } else { JobOutcome::Error };
        }
        match (self.unmet_bytes, freed_nothing) {
            (0, true) => JobOutcome::Noop,
            (0, false) => JobOutcome::Success,
            (_, _) => JobOutcome::Partial,
        }
    }

    /// Returns every plan of every step.
    pub(super) fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.steps.iter().flat_map(|step| &step.rounds)
    }

    /// Returns it as it is put on record.
    pub(super) fn to_record(&self) -> JobRunReport {
        let spared = self.last_of_each_step().map(|report| report.spared.len() as u64);
        let errors = self.steps.iter().filter_map(|step| {
            let what = step.policy.as_deref().unwrap_or("what nothing owns");
            Some(format!("{what}: {}", step.error.as_ref()?))
        });
        let errors: Vec<String> = errors.collect();
        let problem = match errors.is_empty() {
            true => self.is_stopped.then(|| "it was stopped".to_owned()),
            false => Some(errors.join("; ")),
        };
        JobRunReport {
            after: Some(self.after),
            before: Some(self.before),
            freed_bytes: self.freed_bytes,
            goal_bytes: self.goal_bytes,
            held: self.held.clone(),
            notes: self.notes.clone(),
            problem,
            removed: self.removed().len() as u64,
            runs: self.rounds().filter_map(|round| round.report.as_ref()?.run).collect(),
            spared: spared.sum(),
            unmet_bytes: self.unmet_bytes,
        }
    }

    /// Returns the report of the last round of each step: what was spared in an earlier one was tried again.
    pub(super) fn last_of_each_step(&self) -> impl Iterator<Item = &PlanReport> {
        self.steps.iter().filter_map(|step| step.rounds.last()?.report.as_ref())
    }
}

impl Round {
    /// Returns the allocated bytes of the files that are gone: none in a run that removes nothing.
    pub(super) fn freed_bytes(&self) -> u64 {
        let Some(report) = &self.report else { return 0 };
        report.report.bytes_reclaimed.unwrap_or_default().saturating_add(report.recovered.bytes)
    }
}

/// Returns whether a cap of a grant is the reason.
fn is_refusal(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Policy(PolicyError::OverBudget(_)))
}
