use std::path::PathBuf;

use larder::plan::{Plan, PlanReport, RunCost};
use larder::{LocalBackend, MicrosandboxError};

use super::consent::Consent;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::{input, render};

/// Do what a plan says
///
/// Takes a plan that `larder prune --plan FILE` wrote, and removes nothing that is not in it. Each image is checked
/// again: one that names another manifest by now, was used since, is in use or pinned, or is kept by the guard of the home
/// or by the plan's own guard and caps as things are now, is spared.
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
        self.consent.require(context)?;
        let plan = Plan::from_json(&input::read(&self.plan)?)?;
        let local = context.open().await?;
        context.console.note(&render::plan::origin(&plan, context.now()));
        if let Some(warning) = render::plan::from_the_future(&plan, context.now()) {
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
        if context.console.is_json() {
            context.console.json(&PlanReport { gone: progress.gone, ..PlanReport::of(plan) })?;
        } else {
            context.console.data(if plan.is_empty() {
                "nothing to remove\n"
            } else {
                "nothing left to do\n"
            })?;
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
    consent.obtain(context, plan)?;
    let step = context.console.step("removing");
    let work = async {
        let applied = match cost {
            Some(cost) => local.apply_run(plan, cost).await,
            None => local.apply(plan).await,
        };
        match applied {
            Err(MicrosandboxError::Incomplete { report, source }) => Ok(Applied::Partly(report, *source)),
            applied => applied.map(Applied::Whole),
        }
    };
    let applied = context.interruptible(work).await.map_err(Failure::after_removal);
    drop(step);
    match applied? {
        Applied::Whole(report) => Ok(report),
        Applied::Partly(report, error) => {
            render::report::print(&report, context)?;
            Err(error.into())
        }
    }
}

/// What became of a plan.
enum Applied {
    Whole(PlanReport),
    /// Something ended it early.
    Partly(Box<PlanReport>, MicrosandboxError),
}
