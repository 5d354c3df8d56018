//! Values of jobs that a home has on record.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The name of a job: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct JobName(String);

impl JobName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=64).contains(&name.len()) && name.chars().all(is_right) {
            return Ok(Self(name.to_owned()));
        }
        Err("the name of a job has 1 to 64 letters, digits, `-`, `_` and `.`".to_owned())
    }
}

/// Removing, or only planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It removes what its plan says.
    #[default]
    Apply,
    /// It plans and keeps a record, and never removes anything.
    Observe,
}

/// Writes it as a file has it.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What made a job run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobCause {
    /// Its schedule was due.
    Schedule,
    /// Its schedule was due more than ten minutes ago, perhaps several times, and nobody ran it.
    CatchUp,
    /// A bound of the file system was passed.
    Pressure,
    /// A pull or load needed room.
    MakeRoom,
    /// Somebody asked for it.
    Manual,
}

impl fmt::Display for JobCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What became of a run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// It did what it was to do.
    Success,
    /// It did a part: its goal was not met, a step failed and others did not, or it was stopped.
    Partial,
    /// There was nothing to do.
    Noop,
    /// It failed, and removed nothing.
    Error,
    /// A cap of a grant refused what its policies wanted, and it removed nothing.
    Refused,
}

impl JobOutcome {
    /// Returns whether the job has to be tried again.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Refused)
    }
}

impl fmt::Display for JobOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What holds used bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// Sandboxes and snapshots use these images.
    InUse,
    /// A live operation holds these images, or did when they were to go.
    Leased,
    /// Somebody pinned these images.
    Pinned,
    /// A guard protects these images by name, or since few are left of their repository.
    Guarded,
    /// These images are younger than a guard's `min-age`.
    Young,
    /// No step of the job may remove these images.
    Denied,
    /// No step of the job proposed these images: its policies do not want them to go, or have reached the caps of their
    /// grants.
    NotProposed,
    /// Files of the cache that no image has, and that are not removed: they are young, or may be another home's.
    Unowned,
    /// Everything on the file system that is no part of the cache.
    Elsewhere,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A part of the used bytes of a file system, by what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What holds it.
    pub by: HeldBy,
    /// Allocated bytes. What images of several causes share counts for the first of them, in the order of [`HeldBy`].
    pub bytes: u64,
    /// The number of images, where images hold it.
    pub images: u64,
}

/// The state of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemStatus {
    /// Bytes that are used or available.
    pub size_bytes: u64,
    /// Bytes that are available.
    pub available_bytes: u64,
    /// Inodes that are used or available; zero on a file system that does not count them.
    pub inodes: u64,
    /// Inodes that are available.
    pub inodes_free: u64,
}

impl FileSystemStatus {
    /// Returns the bytes that are used.
    pub fn used_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(self.available_bytes)
    }
}

/// The state of a file system at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileSystemSample {
    /// The instant, in whole seconds.
    pub at: DateTime<Utc>,
    /// The state.
    #[serde(flatten)]
    pub status: FileSystemStatus,
}

/// A run of a job, as the home has it on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRunRecord {
    /// Its number; later runs have higher ones.
    pub id: i64,
    /// The job.
    pub job: JobName,
    /// What made it run.
    pub cause: JobCause,
    /// Removing, or only planning.
    pub mode: Mode,
    /// When it began, in whole milliseconds.
    pub started_at: DateTime<Utc>,
    /// When it ended. Absent if it is under way, or if its process was killed.
    pub ended_at: Option<DateTime<Utc>>,
    /// What became of it. Absent if it has not ended.
    pub outcome: Option<JobOutcome>,
    /// The rest.
    #[serde(flatten)]
    pub report: JobRunReport,
}

/// What a run of a job did, as the home has it on record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobRunReport {
    /// The file system when it ended.
    pub after: Option<FileSystemStatus>,
    /// The file system when it began.
    pub before: Option<FileSystemStatus>,
    /// The allocated bytes of the files that are gone, or in a run that removes nothing, would be.
    pub freed_bytes: u64,
    /// The bytes that were to become free; absent without a goal.
    pub goal_bytes: Option<u64>,
    /// What holds the used bytes of the file system, where the goal was not met. The bytes add up to them.
    pub held: Vec<Held>,
    /// What somebody should know: one sentence each.
    pub notes: Vec<String>,
    /// What failed, in one sentence.
    pub problem: Option<String>,
    /// The number of images that went, or would go.
    pub removed: u64,
    /// The numbers of the records of what its steps removed.
    pub runs: Vec<i64>,
    /// The number of images that were to go and were left alone.
    pub spared: u64,
    /// The bytes of the goal that are still missing.
    pub unmet_bytes: u64,
}
