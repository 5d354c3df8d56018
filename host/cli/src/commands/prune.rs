use std::path::PathBuf;

use larder::plan::{Denial, Plan, PlanReport, Right};

use super::apply::apply;
use super::consent::{Consent, warn_of_other_homes};
use super::deciding::{self, RunArguments};
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::source::PolicySource;
use crate::{output, render};

/// Remove what nothing uses, or what a policy decides
///
/// Without a policy, removes every image that no sandbox and no snapshot uses and that is not pinned, and every file that
/// nothing owns. With a policy, removes the images that the policy wants to remove and that its grant allows. The guard in
/// `HOME/larder.toml` holds for both. The plan is shown first, image by image, and then applied as it was shown. A dry run
/// of a policy needs no grant: it shows what the policy would remove if everything was granted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder prune --dry-run
  larder prune --policy keep-recent --config keep=2 --dry-run
  larder prune --policy keep-recent --config keep=2 --grant grant.toml
  larder prune --policy ./demo.wasm --config demo.toml --grant grant.toml --plan plan.json")]
pub(crate) struct Prune {
    /// The policy that decides: one of `larder policy list`, or a path
    #[arg(long, value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policy: Option<PolicySource>,
    #[command(flatten)]
    run: RunArguments,
    /// Show the plan, and change nothing
    #[arg(long, conflicts_with_all = ["plan", "yes"])]
    dry_run: bool,
    /// Write the plan for `larder apply`, and change nothing; an earlier plan is replaced, and no other file
    #[arg(long, value_name = "OUT.json", conflicts_with = "yes", value_hint = clap::ValueHint::FilePath)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

impl Prune {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let only_plans = self.dry_run || self.plan.is_some();
        if let Some(policy) = self.policy.as_ref().filter(|_| !self.dry_run) {
            self.run.require_grant(policy)?;
        }
        let local = context.open().await?;
        if let Some(path) = &self.plan {
            output::refuse_in_home(path, &local)?;
            output::refuse_to_replace(path, "a plan", is_plan)?;
        }
        let (plan, cost) = match &self.policy {
            Some(source) => {
                let run = self.run.run(context)?;
                let policy = self.run.load(source, context).await?;
                let decided = deciding::decide(&local, &policy, &run, context).await;
                let decided = decided.map_err(|failure| self.run.explained(failure, source));
                match decided {
                    Err(failure) if !only_plans => {
                        deciding::put_on_record(&local, &policy, &run, &failure, context).await;
                        return Err(failure);
                    }
                    decided => decided.map(|(plan, cost)| (plan, Some(cost)))?,
                }
            }
            None => (local.plan_prune().await?, None),
        };
        render::plan::remarks(&plan, &context.console);
        if only_plans {
            warn_of_other_homes(&local, &plan, context).await?;
            deciding::show(&plan, context)?;
        }
        if let (Some(policy), None) = (&self.policy, &self.run.grant) {
            self.run.note_preview(policy, context);
            return Ok(Status::Done);
        }
        if plan.is_empty() && plan.denials.iter().any(is_refusal) {
            let mut failure = Failure::denied();
            if let Some(path) = &self.plan {
                failure = failure.with_hint(format!("`{}` is not written", path.display()));
            }
            if !only_plans {
                if context.console.is_json() {
                    context.console.json(&PlanReport::of(&plan))?;
                }
                deciding::put_plan_on_record(&local, &plan, cost, &failure, context).await;
            }
            return Err(failure);
        }
        if only_plans {
            self.write(&plan, context)?;
            return Ok(Status::Done);
        }
        apply(&local, &plan, cost, self.consent, context).await
    }

    /// Writes the plan where that was asked for: all of it or, after a failure, nothing.
    fn write(&self, plan: &Plan, context: &Context) -> Result<(), Failure> {
        let Some(path) = &self.plan else { return Ok(()) };
        output::write(path, &plan.to_json()?)?;
        let path = path.display();
        context.console.note(&match plan.is_empty() {
            true => format!("wrote `{path}`, in which nothing is to be removed"),
            false => format!("wrote `{path}`; to do what it says: `larder apply {path}`"),
        });
        Ok(())
    }
}

/// Returns whether a text is a plan, of whichever version.
fn is_plan(text: &str) -> bool {
    let document = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    ["version", "made_by", "entries"].iter().all(|key| document.get(key).is_some())
}

/// Returns whether a removal was refused for want of a right. That a guard did its work, or that an image was not to be
/// seen, is no failure.
fn is_refusal(denial: &Denial) -> bool {
    matches!(denial.right, Right::Remove | Right::Force | Right::Prune)
}
