use std::collections::HashSet;
use std::path::PathBuf;

use larder::LocalBackend;
use larder::policy::Plan;

use super::consent::Consent;
use super::look;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::{input, render};

/// Do what a plan says
///
/// Takes a plan that `larder prune --plan FILE` wrote, and removes nothing that is not in it. Each image is checked
/// again: one that names another manifest by now, was used since, is in use or pinned, is spared.
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
        apply(&local, &plan, self.consent, context).await
    }
}

/// Shows what is left to do of a plan, asks, does it, and shows what became of it.
pub(crate) async fn apply(
    local: &LocalBackend,
    plan: &Plan,
    consent: Consent,
    context: &Context,
) -> Result<Status, Failure> {
    plan.check_allowed()?;
    let gone = gone(local, plan).await?;
    let files_left =
        plan.collect.iter().any(|file| local.cache_dir().join(&file.path).symlink_metadata().is_ok());
    if gone.len() == plan.removals().count() && !files_left {
        if context.console.is_json() {
            context.console.json(&render::report::nothing_done(plan, gone))?;
        } else {
            context.console.data(if plan.is_empty() {
                "nothing to remove\n"
            } else {
                "nothing left to do\n"
            })?;
        }
        return Ok(Status::Done);
    }
    consent.obtain(context, plan)?;
    let step = context.console.step("removing");
    let report = local.apply(plan).await;
    drop(step);
    let report = report?;
    render::report::print_spared(&report, context)?;
    render::report::print(&report, context)?;
    Ok(if report.spared.is_empty() { Status::Done } else { Status::Spared })
}

/// What a plan is to remove and what is not there any more.
async fn gone(local: &LocalBackend, plan: &Plan) -> Result<Vec<String>, Failure> {
    let images = look(local, |source| source.images()).await?;
    let there: HashSet<&str> = images.iter().map(|image| image.handle.reference()).collect();
    let gone = plan.removals().filter(|entry| !there.contains(entry.reference.as_str()));
    Ok(gone.map(|entry| entry.reference.clone()).collect())
}
