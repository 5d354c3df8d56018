//! What is decided with a policy, and how that is shown before anything is done.

use std::path::PathBuf;

use larder::LocalBackend;
use larder::plan::{FailedRun, RunCost};
use larder::policy::{ByteSize, Evaluation, Plan, Policy, PolicyRun};

use crate::cli::Context;
use crate::engine::{self, CodeCache};
use crate::exit::{Failure, hint_at_grant};
use crate::input::{self, ConfigArgument};
use crate::render;
use crate::source::PolicySource;

/// What a policy runs with.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The policy's config: a value, JSON or text, or a file of JSON or TOML; later ones win
    #[arg(long, value_name = "FILE|KEY=VALUE", requires = "policy", value_parser = config_argument)]
    config: Vec<ConfigArgument>,
    /// The grant of the policy, a file of TOML; without it, a dry run shows what the policy would remove if everything was
    /// granted
    #[arg(long, value_name = "FILE", requires = "policy", value_hint = clap::ValueHint::FilePath)]
    pub(crate) grant: Option<PathBuf>,
    /// The bytes to free: of the images that the policy wants to remove, only the first that free this much are removed
    #[arg(long, value_name = "SIZE", requires = "policy")]
    goal: Option<ByteSize>,
    #[command(flatten)]
    pub(crate) code_cache: CodeCache,
}

pub(crate) fn config_argument(text: &str) -> Result<ConfigArgument, std::convert::Infallible> {
    text.parse()
}

impl RunArguments {
    /// Returns the run that they describe: without a grant, a preview.
    pub(crate) fn run(&self, context: &Context) -> Result<PolicyRun, Failure> {
        let mut run = PolicyRun::preview(context.now()).with_config(input::config(&self.config)?);
        if let Some(goal) = self.goal {
            run = run.with_goal(goal);
        }
        Ok(match &self.grant {
            Some(path) => run.with_grant(input::grant(path)?),
            None => run,
        })
    }

    /// Loads the policy.
    pub(crate) async fn load(&self, policy: &PolicySource, context: &Context) -> Result<Policy, Failure> {
        engine::load(&self.code_cache.engine()?, policy, &context.console).await
    }

    /// Refuses to go on without a grant.
    pub(crate) fn require_grant(&self, policy: &PolicySource) -> Result<(), Failure> {
        match self.grant {
            Some(_) => Ok(()),
            None => Err(Failure::no_grant(&self.suggestion(policy))),
        }
    }

    /// Says that what was shown is a preview.
    pub(crate) fn note_preview(&self, policy: &PolicySource, context: &Context) {
        let hint = hint_at_grant(&self.suggestion(policy));
        context.console.note(&format!(
            "no grant was given, so this is what the policy would remove if everything was granted; {hint}"
        ));
    }

    /// Returns the failure of a run with the command that says how much the policy wants, where caps refused it.
    pub(crate) fn explained(&self, failure: Failure, policy: &PolicySource) -> Failure {
        match failure.kind() {
            "over-budget" => failure.with_hint(format!(
                "nothing was changed; `{}` says how much it wants: raise the cap in `[grant]`, or configure the policy \
                 to remove less",
                self.suggestion(policy)
            )),
            _ => failure,
        }
    }

    /// Returns the command that suggests a grant for this policy and config. A long config is left to the reader.
    fn suggestion(&self, policy: &PolicySource) -> String {
        const LONG: usize = 60;
        let config: String = self
            .config
            .iter()
            .map(|piece| format!(" --config {}", render::word(&piece.to_string())))
            .collect();
        let config = if config.chars().count() > LONG { " --config …" } else { &config };
        format!("larder policy explain {}{config} --suggest-grant", render::word(&policy.to_string()))
    }
}

/// What the policy wants on a home, as far as it may, and what it took to find out.
pub(crate) async fn decide(
    local: &LocalBackend,
    policy: &Policy,
    run: &PolicyRun,
    context: &Context,
) -> Result<(Plan, RunCost), Failure> {
    let step = context.console.step("running the policy");
    let evaluation = local.plan_policy(policy, run).await?;
    let cost = evaluation.cost();
    let Evaluation { plan, stats, .. } = evaluation;
    drop(step);
    context.console.detail(&format!(
        "the policy took {:.1} ms, {} and {} of memory",
        stats.duration.as_secs_f64() * 1000.0,
        render::count(usize::try_from(stats.host_calls).unwrap_or(usize::MAX), "host call"),
        render::size::size(stats.memory_bytes),
    ));
    Ok((plan, cost))
}

/// Puts on record that a run came to nothing. That this fails, too, is said and is not why nothing was done.
pub(crate) async fn put_on_record(
    local: &LocalBackend,
    policy: &Policy,
    run: &PolicyRun,
    failure: &Failure,
    context: &Context,
) {
    record(local, run.failed(policy, reason(failure)).await, context).await;
}

/// The same for a run that made a plan which is refused.
pub(crate) async fn put_plan_on_record(
    local: &LocalBackend,
    plan: &Plan,
    cost: Option<RunCost>,
    failure: &Failure,
    context: &Context,
) {
    let mut failed = FailedRun::new(reason(failure));
    failed.policy = plan.policy.clone();
    failed.config = plan.config.clone().unwrap_or_default();
    failed.grant = plan.grant.clone();
    failed.cost = cost;
    record(local, failed, context).await;
}

/// Returns why nothing was done.
fn reason(failure: &Failure) -> String {
    failure.messages().collect::<Vec<_>>().join(": ")
}

async fn record(local: &LocalBackend, failed: FailedRun, context: &Context) {
    if let Err(error) = local.record_failure(failed).await {
        context.console.warn(&format!("the run is not on record: {error}"));
    }
}

/// Shows a plan that is not applied: every decision for people, the document for programs.
pub(crate) fn show(plan: &Plan, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        console.data(&plan.to_json()?)
    } else {
        console.data(&render::plan::decisions(plan, console))
    }
}
