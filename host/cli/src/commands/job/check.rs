use chrono::{DateTime, Utc};
use larder::job::{FileSystemStatus, Finding, Findings, Job, Trigger};
use larder::policy::PolicyEngine;
use serde::Serialize;

use super::{FileArgument, Read, line, policies, refused};
use crate::cli::Context;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::render::job;

/// Say everything that is wrong with the job file, and what its jobs will do
///
/// Policies are loaded, and each is asked for its opinion of its config. Bounds are shown in bytes of this file system,
/// schedules with their next five times and the clock changes that they meet within a year. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job check
  larder job check --file ./larder.toml --format json")]
pub(crate) struct Check {
    #[command(flatten)]
    file: FileArgument,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// The result, as programs get it.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a std::path::Path,
    warnings: &'a [Finding],
    jobs: Vec<job::Explained>,
}

impl Check {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let read = self.file.read(&local)?;
        let fs = FileSystemStatus::of(local.cache_dir())?;
        let engine = self.code_cache.engine()?;
        let step = context.console.step("asking the policies");
        let findings = findings(&engine, &read, &fs, context.now()).await;
        drop(step);
        if !findings.is_empty() {
            let all: Findings = findings.into_iter().chain(read.file.warnings).collect();
            return Err(refused(&read.path, &all));
        }
        let jobs: Vec<job::Explained> =
            read.file.jobs.iter().map(|job| job::explain(job, &fs, context.now())).collect();
        let console = &context.console;
        if console.is_json() {
            console.json(&Checked { file: &read.path, warnings: &read.file.warnings, jobs })?;
            return Ok(Status::Done);
        }
        for finding in &read.file.warnings {
            console.note(&line(&read.path, finding));
        }
        console.data(&jobs.iter().map(job::Explained::lines).collect::<Vec<_>>().join("\n"))?;
        console.note(&format!("`{}` can be used", read.path.display()));
        Ok(Status::Done)
    }
}

/// Finds what only policies and the file system can tell.
pub(super) async fn findings(
    engine: &PolicyEngine,
    read: &Read,
    fs: &FileSystemStatus,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for job in &read.file.jobs {
        findings.extend(bounds(job, fs));
        for step in &job.steps {
            match policies::load(engine, &read.path, step).await {
                Ok(policy) => findings.extend(policies::try_config(&policy, job, step, now).await.err()),
                Err(finding) => findings.push(finding),
            }
        }
    }
    findings
}

/// Finds bounds that make no sense on this file system.
fn bounds(job: &Job, fs: &FileSystemStatus) -> Vec<Finding> {
    let Trigger::Pressure(pressure) = &job.trigger else { return Vec::new() };
    let wrong = pressure.watermarks.iter().filter(|watermark| !watermark.on(fs).is_right());
    wrong
        .map(|watermark| {
            let problem = format!(
                "on this file system of {}, the end of the bound (`{}`) is not beyond its begin (`{}`)",
                crate::render::size::size(fs.size_bytes),
                watermark.stop,
                watermark.start,
            );
            job.finding(problem, Some("write both as shares, or both as sizes".to_owned()))
        })
        .collect()
}
