use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use larder::job::{Health, JobState, JobStatus, Jobs, JobsStatus, PolicyName};
use larder::policy::Policy;

use super::FileArgument;
use crate::cli::Context;
use crate::exit::{Failure, Probe};
use crate::render::age::age;
use crate::render::size::size;
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, count, plain};

/// Show what each job did last and does next, and whether that is all right
///
/// A job is all right if its last run succeeded, and if it has not been due twice since a success. A job under pressure is
/// all right if somebody looks at its bounds as often as it says, and if its goal was met. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status of `--check`, as monitoring plugins have it: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN: the job file or the home \
cannot be read.

Examples:
  larder job status
  larder job status --check
  larder job status --format json")]
pub(crate) struct Status {
    #[command(flatten)]
    file: FileArgument,
    /// Print one line for a monitoring system, and end with its exit status
    #[arg(long)]
    check: bool,
}

impl Status {
    pub(crate) async fn run(self, context: &Context) -> Result<crate::exit::Status, Failure> {
        let status = self.status(context).await;
        if self.check {
            let (probe, line) = match &status {
                Ok(status) => judge(status),
                Err(failure) => (Probe::Unknown, failure.messages().collect::<Vec<_>>().join(": ")),
            };
            let level = format!("{probe:?}").to_uppercase();
            context.console.data(&format!("LARDER {level} - {}\n", one_line(&line)))?;
            return Ok(probe.into());
        }
        let status = status?;
        if context.console.is_json() {
            context.console.json(&status)?;
        } else {
            context.console.data(&table(&status, context.console.width()))?;
            context.console.note(&match status.looked_at {
                Some(at) => format!("the jobs were looked at {}", age(at, status.at)),
                None => "nobody has looked at the jobs yet: `larder job start`, or `larder job run --due`"
                    .to_owned(),
            });
        }
        Ok(crate::exit::Status::Done)
    }

    async fn status(&self, context: &Context) -> Result<JobsStatus, Failure> {
        let local = context.open().await?;
        let read = self.file.read(&local)?;
        // Nothing runs, so no policy is loaded.
        let policies: HashMap<PolicyName, Policy> = HashMap::new();
        Ok(Jobs::new(local, read.file, Arc::new(policies)).status().await?)
    }
}

/// Judges all jobs: by the worst of them, which are named.
fn judge(status: &JobsStatus) -> (Probe, String) {
    let probe = |health: &Health| match health {
        Health::Ok => Probe::Ok,
        Health::Warning(_) => Probe::Warning,
        Health::Critical(_) => Probe::Critical,
    };
    let worst = status.jobs.iter().map(|job| probe(&job.health)).max().unwrap_or(Probe::Ok);
    let mut bad: Vec<&JobStatus> = status.jobs.iter().filter(|job| job.health != Health::Ok).collect();
    bad.sort_by_key(|job| std::cmp::Reverse(probe(&job.health)));
    if bad.is_empty() {
        return (worst, format!("{}, all is well", count(status.jobs.len(), "job")));
    }
    let reasons: Vec<String> =
        bad.iter().map(|job| format!("{}: {}", job.job, reason(&job.health))).collect();
    (worst, reasons.join("; "))
}

/// Returns a text as one line without the sign that monitoring systems take for the beginning of figures.
fn one_line(text: &str) -> String {
    plain(&text.replace('\n', "; ").replace('|', "/"))
}

fn table(status: &JobsStatus, width: Option<u16>) -> String {
    let columns = ["JOB", "STATE", "LAST RUN", "NEXT", "MISSING", "MODE", "HEALTH"];
    let mut table = Table::new(columns.map(|name| (name, Align::Left)), width);
    for job in &status.jobs {
        table.row([
            job.job.to_string(),
            state(job.state).to_owned(),
            last(job, status.at),
            next(job, status.at),
            missing(job),
            job.mode.to_string(),
            health(&job.health),
        ]);
    }
    table.render()
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Idle => "idle",
        JobState::Due => "due",
        JobState::Running => "running",
        JobState::BackingOff => "backing off",
    }
}

/// Such as `success, 3 hours ago`.
fn last(job: &JobStatus, now: DateTime<Utc>) -> String {
    let Some(last) = &job.last else { return NOTHING.to_owned() };
    match (last.outcome, last.ended_at) {
        (Some(outcome), Some(ended_at)) => format!("{outcome}, {}", age(ended_at, now)),
        _ if job.state == JobState::Running => format!("began {}", age(last.started_at, now)),
        _ => format!("killed, began {}", age(last.started_at, now)),
    }
}

fn next(job: &JobStatus, now: DateTime<Utc>) -> String {
    match job.next_at {
        Some(at) if at <= now => "now".to_owned(),
        Some(at) => age(at, now),
        // A job under pressure.
        None if !job.bounds.is_empty() => "when a bound is passed".to_owned(),
        None => NOTHING.to_owned(),
    }
}

/// Returns what has to become free until the bounds of a job are met, passed or not.
fn missing(job: &JobStatus) -> String {
    match job.missing_bytes {
        Some(0) => "nothing".to_owned(),
        Some(missing) => size(missing),
        None => NOTHING.to_owned(),
    }
}

fn health(health: &Health) -> String {
    match health {
        Health::Ok => "ok".to_owned(),
        Health::Warning(reason) => format!("warning: {reason}"),
        Health::Critical(reason) => format!("critical: {reason}"),
    }
}

fn reason(health: &Health) -> &str {
    match health {
        Health::Ok => "all is well",
        Health::Warning(reason) | Health::Critical(reason) => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line for a monitoring system has no second line, and nothing that it would take for figures.
    #[test]
    fn one_line_without_figures() {
        assert_eq!(one_line("2 errors\na|b\u{1b}[2J"), "2 errors; a/b\u{fffd}[2J");
    }
}
