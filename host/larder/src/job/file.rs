//! The job file, as its readers have it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::finding::{Finding, Mark};
use super::schedule::Schedule;
use super::watermark::Watermark;
use crate::policy::{GrantDocument, Guard};
pub use crate::records::{JobName, Mode};
use crate::reference::Digest;

/// The file `larder.toml`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct JobFile {
    /// The images that stay, whoever decides.
    pub guard: Guard,
    /// The jobs, sorted by name.
    pub jobs: Vec<Job>,
    /// Findings about what is probably not meant as it is written.
    pub warnings: Vec<Finding>,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Job {
    /// Its name, which is its table's.
    pub name: JobName,
    /// The times or the bound at which it runs.
    pub trigger: Trigger,
    /// Its policies, in this order. A job under pressure ends with the step that meets its goal.
    pub steps: Vec<Step>,
    /// Removing, or only planning.
    pub mode: Mode,
    pub(super) mark: Mark,
}

/// The times or the bound at which a job runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// At these times.
    Schedule {
        /// The times.
        schedule: Schedule,
        /// The longest delay: each host has a share of it of its own, which does not change.
        jitter: Duration,
    },
    /// A bound of a file system.
    Pressure(Pressure),
}

/// A bound of the file system that the cache is on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// The bounds, at least one. A job begins if one of them is passed, and ends if all are met.
    pub watermarks: Vec<Watermark>,
    /// The time between two looks at the file system, at least five seconds. Default: one minute.
    pub check_every: Duration,
    /// The time after a run in which there is no other, unless it gets worse. Default: ten minutes.
    pub settle: Duration,
    /// Set if it also runs before a pull or load that would not fit. Default: no.
    pub make_room: bool,
}

/// A policy as part of a job.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The policy.
    pub policy: PolicyName,
    /// Its config, a JSON object.
    pub config: serde_json::Value,
    /// Its rights, and the limits of a run.
    pub grant: GrantDocument,
    pub(super) policy_mark: Mark,
    pub(super) config_mark: Mark,
}

/// A policy, as a job file names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PolicyName {
    /// One that comes with the program, such as `keep-recent`.
    Bundled(String),
    /// A component in a file, relative to the job file, with the digest of its bytes: `policies/mine.wasm@sha256:…`.
    File {
        /// The path.
        path: PathBuf,
        /// The SHA-256 of the file. Absent if it is not given, which a check refuses.
        digest: Option<Digest>,
    },
}

impl Job {
    /// Returns whether it makes room for pulls and loads: it is to, and does not only observe.
    pub fn makes_room(&self) -> bool {
        self.mode == Mode::Apply && matches!(&self.trigger, Trigger::Pressure(pressure) if pressure.make_room)
    }

    /// Makes a finding about the job as a whole, such as that a bound makes no sense on this file system.
    pub fn finding(&self, problem: impl Into<String>, suggestion: Option<String>) -> Finding {
        self.mark.error(problem.into(), suggestion)
    }
}

impl Step {
    /// Makes a finding about its policy, such as that there is none of this name.
    pub fn policy_finding(&self, problem: impl Into<String>, suggestion: Option<String>) -> Finding {
        self.policy_mark.error(problem.into(), suggestion)
    }

    /// Makes a finding about its config, such as that the policy refuses it.
    pub fn config_finding(&self, problem: impl Into<String>, suggestion: Option<String>) -> Finding {
        self.config_mark.error(problem.into(), suggestion)
    }
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, digest) = match text.split_once("@sha256:") {
            Some((path, hex)) => {
                let digest = format!("sha256:{hex}")
                    .parse()
                    .map_err(|_| format!("`sha256:{hex}` is no digest: it has 64 digits, in lower case"))?;
                (path, Some(digest))
            }
            None => (text, None),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        match path {
            "" => Err("the name of the policy is empty".to_owned()),
            name if digest.is_none() && name.chars().all(is_name) => Ok(Self::Bundled(name.to_owned())),
            path => Ok(Self::File { path: path.into(), digest }),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled(name) => f.write_str(name),
            Self::File { path, digest: None } => path.display().fmt(f),
            Self::File { path, digest: Some(digest) } => write!(f, "{}@{digest}", path.display()),
        }
    }
}
