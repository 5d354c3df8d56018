use std::cell::Cell;
use std::path::PathBuf;

use larder::plan::{Plan, PlanReport, RunCost};
use larder::{LocalBackend, MicrosandboxError};

use super::consent::{Consent, warn_of_other_homes};
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::interrupt::ENDING;
use crate::{input, render};

/// Apply a plan
///
/// Removes what a plan of `larder prune --plan FILE` says, and nothing else. Each image is checked again. It is spared if
/// it names another manifest now, was used since, is in use or pinned, or is kept by the guard of the home or by the guard
/// and the caps of the plan.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder prune --policy keep-recent --config keep=2 --grant grant.toml --plan plan.json
  larder apply plan.json")]
pub(crate) struct Apply {
    /// The plan
    #[arg(value_name = "PLAN.json", value_hint = clap::ValueHint::FilePath)]
    plan: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

impl Apply {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let plan = Plan::from_json(&input::read(&self.plan)?)?;
        let local = context.open().await?;
        context.console.note(&render::plan::origin(&plan, context.now()));
        if let Some(warning) = render::plan::from_the_future(&plan, context.now()) {
            context.console.warn(&warning);
        }
        plan.check_allowed()?;
        if let Some(warning) = render::plan::from_elsewhere(&plan, &local.identity().await?) {
            context.console.warn(&warning);
        }
        render::plan::patterns(&plan, &context.console);
        apply(&local, &plan, None, self.consent, context).await
    }
}

/// Shows what is left to do of a plan, asks, does it, and shows what became of it. `cost` is what its policy took, where
/// that has just run.
pub(crate) async fn apply(
    local: &LocalBackend,
    plan: &Plan,
    cost: Option<RunCost>,
    consent: Consent,
    context: &Context,
) -> Result<Status, Failure> {
    plan.check_allowed()?;
    let progress = local.progress_of(plan).await?;
    if progress.left == 0 {
        let mut report = PlanReport { gone: progress.gone, ..PlanReport::of(plan) };
        if progress.unfinished > 0 {
            // Somebody agreed to that already, and every change does it.
            report = local.apply(plan).await?;
        }
        if context.console.is_json() {
            context.console.json(&report)?;
        } else {
            let done = if plan.is_empty() { "nothing to remove" } else { "nothing left to do" };
            let more = [render::report::recovered(&report), render::plan::lacking(plan)];
            let more = more.into_iter().flatten().map(|text| format!("; {text}")).collect::<String>();
            context.console.data(&format!("{done}{more}\n"))?;
        }
        return Ok(Status::Done);
    }
    let report = show_ask_apply(local, plan, cost, consent, context).await?;
    render::report::print_spared(&report, context)?;
    render::report::print(&report, context)?;
    Ok(if report.spared.is_empty() { Status::Done } else { Status::Spared })
}

/// Shows what a plan deletes, asks, and does it: the one way in which the program deletes.
///
/// Where something ends the work early, what was removed until then is shown before the failure.
pub(crate) async fn show_ask_apply(
    local: &LocalBackend,
    plan: &Plan,
    cost: Option<RunCost>,
    consent: Consent,
    context: &Context,
) -> Result<PlanReport, Failure> {
    warn_of_other_homes(local, plan, context).await?;
    consent.obtain(context, plan)?;
    let interrupts = context.interrupts()?;
    let step = Cell::new(Some(context.console.step("removing")));
    let stop = async {
        interrupts.asked().await;
        drop(step.take());
        context.console.note(ENDING);
    };
    let applied = local.apply_until(plan, cost, stop).await;
    drop(step);
    match applied {
        Err(MicrosandboxError::Incomplete { report, source }) => {
            render::report::print(&report, context)?;
            Err((*source).into())
        }
        applied => Ok(applied?),
    }
}
