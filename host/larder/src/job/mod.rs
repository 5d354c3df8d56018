//! Jobs: what an operator writes down once, so that a cache stays within bounds by itself.
//!
//! A [`JobFile`] is the file `larder.toml`: the guard of the home, defaults, and one table for each job. A [`Job`] has a
//! name, a [`Trigger`] and [`Step`]s. A trigger is a [`Schedule`] (a cron pattern in a time zone), or [`Pressure`]: the
//! free space at which the job begins, and the free space at which it ends. A step is a policy with its config and its
//! grant.
//!
//! [`Jobs`] puts a file to work on a home. A service looks again and again, and what is due runs:
//!
//! ```no_run
//! use std::collections::HashMap;
//! use std::sync::Arc;
//!
//! use larder::LocalBackend;
//! use larder::job::{JobFile, Jobs, PolicyName};
//! use larder::policy::{Policy, PolicyEngine};
//!
//! # async fn example(local: LocalBackend) -> Result<(), Box<dyn std::error::Error>> {
//! let file = JobFile::parse(&std::fs::read_to_string("larder.toml")?)?;
//! let engine = PolicyEngine::builder().build()?;
//! let policy = Policy::load(&engine, std::fs::read("keep-recent.wasm")?).await?;
//! let policies = HashMap::from([(PolicyName::Bundled("keep-recent".to_owned()), policy)]);
//! let jobs = Jobs::new(local, file, Arc::new(policies));
//! loop {
//!     // Completes when the service is to end: what runs then ends after the images that it is removing.
//!     let stop = std::future::pending();
//!     let tick = jobs.tick(stop).await?;
//!     for ran in &tick.ran {
//!         println!("{}: {:?}", ran.record.job, ran.record.outcome);
//!     }
//!     let pause = tick.next_at - chrono::Utc::now();
//!     tokio::time::sleep(pause.to_std().unwrap_or_default()).await;
//! }
//! # }
//! ```
//!
//! - `file.rs`: the file; `parse.rs`: how it is read; `keys.rs`: its keys as they are written
//! - `reading.rs`: reads a table key by key, so that everything that is wrong is found at once, each [`Finding`] with
//!   line, column and suggestion
//! - `schedule.rs`: when a schedule is due, across clock changes
//! - `watermark.rs`: bounds of a file system, and what they are in bytes on this one
//! - `runner.rs`: runs a job on a home; `step.rs`: a step of it; `report.rs`: what it did; `held.rs`: what an unmet goal is
//!   made of; `stuck.rs`: why space does not become free
//! - `jobs/`: what is due, what is remembered of jobs, and what they are up to: [`Jobs`]
//!
//! Only a [`Runner`] and [`Jobs`] touch anything: a file is parsed from its text, a schedule is asked about an instant, and a
//! bound about the state of a file system.

mod file;
mod finding;
mod held;
mod jobs;
mod keys;
mod parse;
mod pressure;
mod reading;
mod report;
mod runner;
mod schedule;
mod step;
mod stuck;
mod watermark;

pub use file::{Job, JobFile, JobName, Mode, PolicyName, Pressure, Step, Trigger};
pub use finding::{Finding, Findings, Severity};
pub use jobs::{Health, JobRun, JobState, JobStatus, Jobs, JobsStatus, RoomMade, Tick};
pub use report::{JobReport, Round, StepReport};
pub use runner::{Pass, Policies, Runner};
pub use schedule::{ClockChange, ClockChangeKind, Schedule, ScheduleError};
pub use watermark::{Amount, FileSystemStatus, Quantity, ResolvedWatermark, Watermark};

pub use crate::catalog::jobs::counters::{AttemptCount, Bucket, Histogram, JobCounters, SpareCount};
pub use crate::records::{FileSystemSample, Held, HeldBy, JobCause, JobOutcome, JobRunRecord, JobRunReport};

/// The JSON Schema of the file, for editors.
pub const SCHEMA: &str = include_str!("larder.schema.json");

#[cfg(test)]
mod tests;
