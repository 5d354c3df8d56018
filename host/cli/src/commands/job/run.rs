use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use larder::MicrosandboxError;
use larder::job::{JobName, JobReport, JobRun, JobRunRecord, Jobs, Mode, Pass, Round};
use larder::plan::{Plan, PlanReport};
use serde::Serialize;

use super::policies::NamedPolicies;
use super::{FileArgument, Read};
use crate::cli::Context;
use crate::commands::Failures;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::interrupt::ENDING;
use crate::output;
use crate::render;
use crate::render::size::size;
use crate::web::metrics::Textfile;

/// The pause between two looks whether another job has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// Run jobs now, or those that are due
///
/// A job under pressure removes what nothing owns, and then runs its policies in turn, each with what is still missing as
/// its goal, until its bounds are met. The file system is asked again after each step.
///
/// One job runs at a time in a home. A job that is named waits for its turn; what is due and finds another job running is
/// left for the next time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job run pressure --dry-run
  larder job run nightly pressure
  larder job run --due
  larder job run --due --textfile /var/lib/prometheus/node-exporter/larder.prom")]
pub(crate) struct Run {
    /// The jobs, which run in this order
    #[arg(required_unless_present = "due", value_name = "NAME")]
    names: Vec<String>,
    /// Run what is due: schedules whose time has come since their last run, and bounds that are passed
    #[arg(long, conflicts_with_all = ["names", "dry_run"])]
    due: bool,
    /// Show what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Then write the metrics of the home and its jobs, for the textfile collector of Prometheus's node exporter
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run", value_hint = clap::ValueHint::FilePath)]
    textfile: Option<PathBuf>,
    #[command(flatten)]
    file: FileArgument,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// A run, as programs get it.
#[derive(Serialize)]
struct Ran<'a> {
    #[serde(flatten)]
    record: &'a JobRunRecord,
    steps: Vec<RanStep<'a>>,
}

#[derive(Serialize)]
struct RanStep<'a> {
    /// Absent for what nothing owns.
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reports: Vec<&'a PlanReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        if let Some(textfile) = &self.textfile {
            output::refuse_in_home(textfile, &local)?;
        }
        let textfile = self.textfile.clone().map(|path| Textfile::new(path, local.clone())).transpose()?;
        let read = self.file.read(&local)?;
        let names = self.names.iter().map(|name| find(&read, name)).collect::<Result<Vec<_>, _>>()?;
        let policies = NamedPolicies::new(self.code_cache.engine()?, read.path);
        let jobs = Jobs::new(local, read.file, policies);
        let ran = if self.due {
            due(&jobs, context).await?
        } else {
            let pass = if self.dry_run { Pass::DryRun } else { Pass::Real };
            named(&jobs, names, pass, context).await?
        };
        if context.console.is_json() {
            context.console.json(&ran.iter().map(as_data).collect::<Vec<_>>())?;
        }
        let status = judge(ran, self.dry_run, context);
        if let Some(textfile) = textfile {
            textfile.write(&jobs, None).await?;
        }
        Ok(status)
    }
}

/// Runs what is due.
async fn due(jobs: &Jobs, context: &Context) -> Result<Vec<JobRun>, Failure> {
    let (interrupts, console) = (context.interrupts()?, &context.console);
    let step = Cell::new(Some(console.step("running what is due")));
    let stop = async {
        interrupts.asked().await;
        drop(step.take());
        console.note(ENDING);
    };
    let tick = jobs.tick(stop).await;
    drop(step);
    let tick = tick?;
    for problem in &tick.problems {
        console.warn(&render::plain(problem));
    }
    if tick.is_busy {
        console.note("another job is running in this home: what is due is left for the next time");
    } else if tick.ran.is_empty() {
        console.note("nothing is due");
    }
    for ran in &tick.ran {
        show(ran, Pass::Real, context)?;
    }
    Ok(tick.ran)
}

/// Runs jobs by name, in this order.
async fn named(
    jobs: &Jobs,
    names: Vec<JobName>,
    pass: Pass,
    context: &Context,
) -> Result<Vec<JobRun>, Failure> {
    let (interrupts, console) = (context.interrupts()?, &context.console);
    let mut all: Vec<JobRun> = Vec::new();
    for name in names {
        let step = Cell::new(Some(console.step("running the job")));
        let stop = || async {
            interrupts.asked().await;
            drop(step.take());
            console.note(ENDING);
        };
        let mut has_said = false;
        let ran = loop {
            if let Some(ran) = jobs.run(&name, pass, stop()).await? {
                break Some(ran);
            }
            if !std::mem::replace(&mut has_said, true) {
                drop(step.take());
                console.note(&format!("`{name}` waits: another job is running in this home"));
            }
            tokio::select! {
                () = interrupts.asked() => break None,
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        drop(step);
        let Some(ran) = ran else { return Err(MicrosandboxError::Stopped.into()) };
        show(&ran, pass, context)?;
        let is_stopped = ran.report.as_ref().is_ok_and(|report| report.is_stopped);
        all.push(ran);
        if is_stopped {
            break;
        }
    }
    Ok(all)
}

/// Returns the status that runs end the program with. Says what failed.
fn judge(ran: Vec<JobRun>, is_dry: bool, context: &Context) -> Status {
    let mut failures = Failures::new(context);
    let mut spared = false;
    for JobRun { record, report, .. } in ran {
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                failures.add(&Failure::from(error).of_policy("run", &record.job));
                continue;
            }
        };
        if report.unmet_bytes > 0 && !report.is_stopped {
            unmet(&report, is_dry, context, &mut failures);
        }
        let is_stopped = report.is_stopped;
        for step in report.steps {
            spared |= step
                .rounds
                .last()
                .and_then(|round| round.report.as_ref())
                .is_some_and(|report| !report.spared.is_empty());
            let what = step.policy.as_deref().unwrap_or("what nothing owns").to_owned();
            if let Some(error) = step.error {
                failures.add(&Failure::from(error).of_policy("run", &what));
            }
        }
        if is_stopped && !failures.any() {
            failures.add(&MicrosandboxError::Stopped.into());
        }
    }
    match failures.status() {
        Status::Done if spared => Status::Spared,
        status => status,
    }
}

/// Finds a job by its name.
fn find(read: &Read, name: &str) -> Result<JobName, Failure> {
    let job = read.file.jobs.iter().find(|job| job.name.as_str() == name);
    job.map(|job| job.name.clone()).ok_or_else(|| {
        let names: Vec<String> = read.file.jobs.iter().map(|job| format!("`{}`", job.name)).collect();
        let there = if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        Failure::usage(format!("`{}` has no job `{}`; {there}", read.path.display(), render::plain(name)))
    })
}

/// Says that a goal was not reached, a failure of a run that was to reach it, and what holds the rest.
fn unmet(report: &JobReport, is_dry: bool, context: &Context, failures: &mut Failures<'_>) {
    let (missing, job) = (size(report.unmet_bytes), &report.job);
    if is_dry {
        context.console.warn(&format!("`{job}` would not reach its goal: {missing} would be missing"));
    } else {
        failures.add(&Failure::goal_unmet(format!("`{job}` did not reach its goal: {missing} are missing")));
    }
    if !report.held.is_empty() {
        context.console.note(&render::job::held_lines(&report.held));
    }
}

/// Shows what a run did, or would do, for people.
fn show(ran: &JobRun, pass: Pass, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    let Ok(report) = &ran.report else { return Ok(()) };
    if console.is_json() {
        return Ok(());
    }
    match report.goal_bytes {
        Some(0) => console.note(&format!("`{}`: its bounds are met, nothing to do", report.job)),
        Some(goal) => console.note(&format!("`{}`: {} are to become free", report.job, size(goal))),
        None => console.note(&format!("`{}`:", report.job)),
    }
    for step in &report.steps {
        let what = step.policy.as_deref().unwrap_or("what nothing owns");
        for Round { plan, report, .. } in &step.rounds {
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
    }
    for note in &report.notes {
        console.warn(&render::plain(note));
    }
    if pass == Pass::Real && ran.record.mode == Mode::Observe {
        console.note(&format!("`{}` observes: nothing was removed", report.job));
    }
    Ok(())
}

fn as_data(ran: &JobRun) -> Ran<'_> {
    let steps = ran.report.iter().flat_map(|report| &report.steps).map(|step| RanStep {
        policy: step.policy.as_deref(),
        plan: step.rounds.last().filter(|round| round.report.is_none()).map(|round| &round.plan),
        reports: step.rounds.iter().filter_map(|round| round.report.as_ref()).collect(),
        error: step.error.as_ref().map(ToString::to_string),
    });
    Ran { record: &ran.record, steps: steps.collect() }
}
