//! Jobs: what an operator writes down once, so that a cache stays within bounds by itself.
//!
//! A [`JobFile`] is the file `larder.toml`: the guard of the home, defaults, and one table for each job. A [`Job`] has a
//! name, a [`Trigger`] and [`Step`]s. A trigger is a [`Schedule`] (a cron pattern in a time zone), or [`Pressure`]: the
//! free space at which the job begins, and the free space at which it ends. A step is a policy with its config and its
//! grant.
//!
//! - `file.rs`: the file; `parse.rs`: how it is read; `keys.rs`: its keys as they are written
//! - `reading.rs`: reads a table key by key, so that everything that is wrong is found at once, each [`Finding`] with
//!   line, column and suggestion
//! - `schedule.rs`: when a schedule is due, across clock changes
//! - `watermark.rs`: bounds of a file system, and what they are in bytes on this one
//! - `runner.rs`: runs a job on a home
//!
//! Only a [`Runner`] touches anything: a file is parsed from its text, a schedule is asked about an instant, and a
//! bound about the state of a file system.

mod file;
mod finding;
mod keys;
mod parse;
mod reading;
mod runner;
mod schedule;
mod watermark;

pub use file::{Job, JobFile, JobName, Mode, PolicyName, Pressure, Step, Trigger};
pub use finding::{Finding, Findings, Severity};
pub use runner::{JobReport, Pass, Runner, StepReport};
pub use schedule::{ClockChange, ClockChangeKind, Schedule, ScheduleError};
pub use watermark::{Amount, FileSystemStatus, Quantity, ResolvedWatermark, Watermark};

/// The JSON Schema of the file, for editors.
pub const SCHEMA: &str = include_str!("larder.schema.json");

#[cfg(test)]
mod tests;
