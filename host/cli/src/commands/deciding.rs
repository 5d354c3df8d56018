//! What is decided with a policy, and how that is shown before anything is done.

use std::path::PathBuf;

use larder::LocalBackend;
use larder::policy::{Evaluation, Plan, Policy, PolicyRun};

use crate::cli::Context;
use crate::engine::{self, CodeCache};
use crate::exit::Failure;
use crate::input::{self, ConfigArgument};
use crate::render;
use crate::source::PolicySource;

/// What a policy runs with.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The policy's config: a value, JSON or text, or a file of JSON or TOML; later ones win
    #[arg(long, value_name = "FILE|KEY=VALUE", requires = "policy", value_parser = config_argument)]
    config: Vec<ConfigArgument>,
    /// What the policy may do, a file of TOML; without it, it may see everything and change nothing
    #[arg(long, value_name = "FILE", requires = "policy", value_hint = clap::ValueHint::FilePath)]
    pub(crate) grant: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) code_cache: CodeCache,
}

pub(crate) fn config_argument(text: &str) -> Result<ConfigArgument, std::convert::Infallible> {
    text.parse()
}

impl RunArguments {
    /// The run that they describe.
    pub(crate) fn run(&self, context: &Context) -> Result<PolicyRun, Failure> {
        Ok(PolicyRun::new(context.now())
            .with_config(input::config(&self.config)?)
            .with_grant(input::grant(self.grant.as_deref())?))
    }

    /// Loads the policy.
    pub(crate) fn load(&self, policy: &PolicySource, context: &Context) -> Result<Policy, Failure> {
        engine::load(&self.code_cache.engine()?, policy, &context.console)
    }
}

/// What the policy wants on a home, as far as it may.
pub(crate) async fn decide(
    local: &LocalBackend,
    policy: &Policy,
    run: &PolicyRun,
    context: &Context,
) -> Result<Plan, Failure> {
    let step = context.console.step("running the policy");
    let Evaluation { plan, stats, .. } = local.plan_policy(policy, run).await?;
    drop(step);
    context.console.detail(&format!(
        "the policy took {:.1} ms, {} and {} of memory",
        stats.duration.as_secs_f64() * 1000.0,
        render::count(usize::try_from(stats.host_calls).unwrap_or(usize::MAX), "host call"),
        render::size::size(stats.memory_bytes),
    ));
    Ok(plan)
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
