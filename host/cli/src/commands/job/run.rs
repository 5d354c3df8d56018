use std::cell::Cell;

use larder::MicrosandboxError;
use larder::job::{Job, JobReport, Mode, Pass, Runner, StepReport};
use larder::plan::{Plan, PlanReport};
use serde::Serialize;

use super::{FileArgument, Read, policies, refused};
use crate::cli::Context;
use crate::commands::Failures;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::interrupt::ENDING;
use crate::render;
use crate::render::size::size;

/// Run jobs now, whatever their schedules say
///
/// A job under pressure removes what nothing owns, and then runs its policies in turn, each with what is still missing as
/// its goal, until its bounds are met. The file system is asked again after each step.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job run pressure --dry-run
  larder job run nightly pressure")]
pub(crate) struct Run {
    /// The jobs, which run in this order
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Show what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    file: FileArgument,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// A run, as programs get it.
#[derive(Serialize)]
struct Ran<'a> {
    job: &'a str,
    goal_bytes: Option<u64>,
    unmet_bytes: u64,
    steps: Vec<RanStep<'a>>,
}

#[derive(Serialize)]
struct RanStep<'a> {
    /// Absent for what nothing owns.
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a PlanReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let read = self.file.read(&local)?;
        let jobs = self.names.iter().map(|name| find(&read, name)).collect::<Result<Vec<_>, _>>()?;
        let engine = self.code_cache.engine()?;
        let runner = Runner::new(local).with_guard(read.file.guard.clone());
        let pass = if self.dry_run { Pass::DryRun } else { Pass::Real };
        let mut failures = Failures::new(context);
        let mut ran = Vec::new();
        for job in jobs {
            let step = context.console.step("loading the policies");
            let mut loaded = Vec::new();
            for step in &job.steps {
                let policy = policies::load(&engine, &read.path, step).await;
                loaded.push(
                    policy.map_err(|finding| refused(&read.path, &larder::job::Findings(vec![finding])))?,
                );
            }
            drop(step);
            let interrupts = context.interrupts()?;
            let step = Cell::new(Some(context.console.step("running the job")));
            let stop = async {
                interrupts.asked().await;
                drop(step.take());
                context.console.note(ENDING);
            };
            let report = runner.run_until(job, &loaded, pass, stop).await;
            drop(step);
            let report = report?;
            show(&report, job, pass, context)?;
            let is_stopped = report.is_stopped;
            ran.push(report);
            if is_stopped {
                break;
            }
        }
        if context.console.is_json() {
            context.console.json(&ran.iter().map(as_data).collect::<Vec<_>>())?;
        }
        let mut spared = false;
        for report in ran {
            if report.unmet_bytes > 0 && !report.is_stopped {
                unmet(&report, pass, context, &mut failures);
            }
            for step in report.steps {
                spared |= step
                    .result
                    .as_ref()
                    .is_ok_and(|(_, report)| report.as_ref().is_some_and(|report| !report.spared.is_empty()));
                let what = step.policy.as_deref().unwrap_or("what nothing owns");
                failures.catch(step.result.map_err(|error| failed(error, what)));
            }
            if report.is_stopped && !failures.any() {
                failures.add(&MicrosandboxError::Stopped.into());
            }
        }
        Ok(match failures.status() {
            Status::Done if spared => Status::Spared,
            status => status,
        })
    }
}

/// Finds a job by its name.
fn find<'a>(read: &'a Read, name: &str) -> Result<&'a Job, Failure> {
    read.file.jobs.iter().find(|job| job.name.as_str() == name).ok_or_else(|| {
        let names: Vec<String> = read.file.jobs.iter().map(|job| format!("`{}`", job.name)).collect();
        let there = if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        Failure::usage(format!("`{}` has no job `{}`; {there}", read.path.display(), render::plain(name)))
    })
}

/// Returns the failure of a step. What it removed until then was shown.
fn failed(error: MicrosandboxError, what: &str) -> Failure {
    let error = match error {
        MicrosandboxError::Incomplete { source, .. } => *source,
        error => error,
    };
    Failure::from(error).of_policy("run", &what)
}

/// Says that a goal was not reached: a failure of a run that was to reach it.
fn unmet(report: &JobReport, pass: Pass, context: &Context, failures: &mut Failures<'_>) {
    let missing = size(report.unmet_bytes);
    match pass {
        Pass::DryRun => context
            .console
            .warn(&format!("`{}` would not reach its goal: {missing} would be missing", report.job)),
        Pass::Real => {
            failures.add(&Failure::goal_unmet(format!(
                "`{}` did not reach its goal: {missing} are missing",
                report.job
            )));
        }
    }
}

/// Shows what a run did, or would do, for people.
fn show(report: &JobReport, job: &Job, pass: Pass, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return Ok(());
    }
    match report.goal_bytes {
        Some(0) => console.note(&format!("`{}`: its bounds are met, nothing to do", report.job)),
        Some(goal) => console.note(&format!("`{}`: {} are to become free", report.job, size(goal))),
        None => console.note(&format!("`{}`:", report.job)),
    }
    for step in &report.steps {
        let StepReport { policy, result, .. } = step;
        let (plan, report) = match result {
            Ok((plan, report)) => (plan, report),
            Err(MicrosandboxError::Incomplete { report, .. }) => {
                render::report::print(report, context)?;
                continue;
            }
            Err(_) => continue,
        };
        let what = policy.as_deref().unwrap_or("what nothing owns");
        match report {
            Some(report) => {
                console.note(&format!("{what}:"));
                render::report::print_spared(report, context)?;
                render::report::print(report, context)?;
            }
            None => {
                console.note(&format!("{what}: would free {}", size(plan.bytes)));
                console.data(&render::plan::removals(plan, console))?;
            }
        }
    }
    if pass == Pass::Real && job.mode == Mode::Observe {
        console.note(&format!("`{}` observes: nothing was removed", report.job));
    }
    Ok(())
}

fn as_data(report: &JobReport) -> Ran<'_> {
    let steps = report.steps.iter().map(|step| {
        let (plan, done) = match &step.result {
            Ok((plan, None)) => (Some(plan), None),
            Ok((_, done)) => (None, done.as_ref()),
            Err(_) => (None, None),
        };
        let error = step.result.as_ref().err().map(ToString::to_string);
        RanStep { policy: step.policy.as_deref(), plan, report: done, error }
    });
    Ran {
        job: report.job.as_str(),
        goal_bytes: report.goal_bytes,
        unmet_bytes: report.unmet_bytes,
        steps: steps.collect(),
    }
}
