use larder::policy::{GrantDocument, GrantSuggestion, Plan, PolicyRun};
use larder::{LocalBackend, MicrosandboxError};
use serde::Serialize;

use crate::cli::Context;
use crate::commands::deciding::{self, RunArguments};
use crate::exit::{Failure, Status};
use crate::render::{self, count, diff, size};
use crate::source::PolicySource;

/// Show what a policy decides about every image, and why
///
/// A dry run: nothing changes. What the grant or the guard denies is shown with what would allow it. Without a grant, shows
/// what the policy would remove if everything was granted. With `--suggest-grant`, prints the smallest grant that is known
/// to suffice: the rights that the policy uses when it has all of them, tried in a second run. Read it, save it, and pass
/// it with `--grant`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy explain keep-recent --config keep=2
  larder policy explain keep-recent --config keep=2 --suggest-grant > grant.toml
  larder policy explain ./keep-recent-2.wasm --config keep=2 --grant grant.toml --suggest-grant")]
pub(crate) struct Explain {
    /// The policy: one of `larder policy list`, or a path
    #[arg(value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policy: PolicySource,
    #[command(flatten)]
    run: RunArguments,
    /// Print the smallest grant that the policy needs here, and how it differs from the one given
    #[arg(long)]
    suggest_grant: bool,
}

/// A suggestion, for programs.
#[derive(Debug, Serialize)]
struct Suggestion<'a> {
    /// Lines of the grant that was given with `-`, of the suggested one with `+`; absent where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Vec<String>>,
    grant: &'a GrantDocument,
    /// What the policy decides under the suggested grant.
    plan: &'a Plan,
    /// How often the policy ran.
    runs: u32,
    /// The grant as a file.
    toml: String,
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let run = self.run.run(context)?;
        let local = context.open().await?;
        let policy = self.run.load(&self.policy, context).await?;
        if self.suggest_grant {
            let step = context.console.step("trying grants");
            let suggestion = local.suggest_grant(&policy, &run).await?;
            drop(step);
            self.print(&suggestion, &run, context)?;
            self.compare(&local, &policy, &suggestion, &run, context).await?;
            return Ok(Status::Done);
        }
        let decided = deciding::decide(&local, &policy, &run, context).await;
        let (plan, _) = decided.map_err(|failure| self.run.explained(failure, &self.policy))?;
        render::plan::remarks(&plan, &context.console);
        deciding::show(&plan, context)?;
        if run.grant().is_none() {
            self.run.note_preview(&self.policy, context);
        }
        Ok(Status::Done)
    }

    fn print(&self, suggestion: &GrantSuggestion, run: &PolicyRun, context: &Context) -> Result<(), Failure> {
        let console = &context.console;
        let plan = &suggestion.evaluation.plan;
        let lines = render::grant::lines(&suggestion.document)?;
        let toml = format!("{}{}\n", headline(plan, run), lines.join("\n"));
        if console.is_json() {
            let given = run.grant().map(render::grant::lines).transpose()?;
            let diff = given.map(|given| diff::lines(&given, &lines));
            let (grant, runs) = (&suggestion.document, suggestion.runs);
            return console.json(&Suggestion { diff, grant, plan, runs, toml });
        }
        console.data(&toml)?;
        let removals = plan.removals().count();
        console.note(&format!(
            "under this grant the policy decides as with every right: {} of {} {}; this frees {}; it was tried {} times",
            removals,
            count(suggestion.unrestricted.plan.entries.len(), "image"),
            if removals == 1 { "goes" } else { "go" },
            size::size(plan.bytes),
            suggestion.runs,
        ));
        if suggestion.document.grant.secrets {
            console.warn(
                "it decides by environment variables, which `secrets` shows it: its reasons may repeat them",
            );
        }
        if removals == 0 {
            console.note(
                "it removes nothing here, so that its rights say nothing about other homes and configs",
            );
        } else if suggestion.document.grant.read == GrantDocument::default().grant.read {
            console.note("no narrower `read` was found under which it decides the same");
        }
        Ok(())
    }

    /// Says how the suggested grant differs from the one that was given, and what that one leaves of the decisions.
    async fn compare(
        &self,
        local: &LocalBackend,
        policy: &larder::policy::Policy,
        suggestion: &GrantSuggestion,
        run: &PolicyRun,
        context: &Context,
    ) -> Result<(), Failure> {
        let console = &context.console;
        let (Some(path), Some(given), false) = (&self.run.grant, run.grant(), console.is_json()) else {
            return Ok(());
        };
        let path = path.display().to_string();
        let wanted = suggestion.unrestricted.plan.removals().count();
        match local.plan_policy(policy, run).await {
            Ok(evaluation) => console.note(&format!(
                "under `{path}` {} of the {} that it wants to remove go",
                evaluation.plan.removals().count(),
                count(wanted, "image")
            )),
            Err(MicrosandboxError::Policy(error)) => {
                console.note(&format!("under `{path}` there is no plan: {error}"))
            }
            Err(error) => return Err(error.into()),
        }
        let (given, suggested) = (render::grant::lines(given)?, render::grant::lines(&suggestion.document)?);
        if given == suggested {
            console.note(&format!("`{path}` is this grant"));
        } else {
            console.show(&diff::render((&path, &given), ("suggested", &suggested), 0));
        }
        Ok(())
    }
}

/// What a suggestion rests on, as comments at its top.
fn headline(plan: &Plan, run: &PolicyRun) -> String {
    let policy = plan.policy.as_ref().map(|policy| format!("{} {}", policy.name, policy.version));
    format!(
        "# What {} needs to decide as it did at {} with the config {}\n",
        policy.unwrap_or_default(),
        plan.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        render::plain(&run.config().to_string())
    )
}
