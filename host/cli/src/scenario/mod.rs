//! Scenarios: caches that are written down in TOML, and what a policy is expected to decide about them.
//!
//! A file is one or more `[[scenario]]`. Each is a cache in memory (images, the sizes of their layers, a disk), a config,
//! a grant, perhaps a goal, and either every decision that is expected, in the order of a plan, or the kind of failure. The
//! policy that runs on it is the real component, under the limits of the scenario; no home is touched. Reasons and
//! sentences are compared where they are expected: those of the host are left out, since its wording may change.
//!
//! - `file`: what can stand in a file, and the scenarios that it makes; `diagnose`: what is wrong with one
//! - `decisions`: what was expected and what came of a run, and how the two differ
//! - `update`: what came of a run, written into the file

mod decisions;
mod diagnose;
mod file;
mod update;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use larder::policy::{ByteSize, GrantDocument, Policy, PolicyRun};
use larder::snapshot::MemoryCache;

pub(crate) use decisions::Outcome;
pub(crate) use update::update;

use crate::exit::Failure;
use crate::input;

/// A file of scenarios.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The policy that the file names, relative to the working directory.
    pub(crate) policy: Option<PathBuf>,
    pub(crate) scenarios: Vec<Scenario>,
}

/// A cache, and what is expected of a policy on it.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// In the file, counted from 1.
    pub(crate) line: usize,
    cache: MemoryCache,
    config: serde_json::Value,
    grant: GrantDocument,
    goal: Option<ByteSize>,
    now: DateTime<Utc>,
    pub(crate) expected: Option<Outcome>,
}

impl Suite {
    /// Reads a file. Of all that is wrong with it, the first thing is said.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        file::read(path, input::read(path)?)
    }
}

impl Scenario {
    /// Returns whether this, which was seen, is what the scenario expects.
    pub(crate) fn is_met_by(&self, seen: &Outcome) -> bool {
        self.expected.as_ref().is_some_and(|expected| seen.meets(expected))
    }

    /// What the policy decides. That this machine cannot run it is no outcome.
    pub(crate) async fn run(&self, policy: &Policy) -> Result<Outcome, Failure> {
        let run = PolicyRun::new(self.now).with_config(self.config.clone()).with_grant(self.grant.clone());
        let run = match self.goal {
            Some(goal) => run.with_goal(goal),
            None => run,
        };
        match policy.evaluate(Box::new(self.cache.clone()), &run).await {
            Ok(evaluation) => Ok(Outcome::of_plan(&evaluation.plan)),
            Err(error) => Outcome::of_error(error),
        }
    }
}
