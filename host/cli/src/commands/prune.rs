use std::io::Write as _;
use std::path::{Path, PathBuf};

use larder::LocalBackend;
use larder::policy::{Plan, Policy, PolicyEngine, PolicyRun};

use super::apply::apply;
use super::consent::Consent;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::input::{self, ConfigArgument};
use crate::render;

/// Remove what nothing uses, or what a policy says
///
/// Without a policy: every image that no sandbox and no snapshot uses and nobody pinned, and every file that nothing
/// owns. With a policy: what it wants and its grant allows. What goes is shown first, image by image, and what was
/// shown is what is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder prune --dry-run
  larder prune --policy keep-recent.wasm --config keep=2 --grant grant.toml --dry-run
  larder prune --policy keep-recent.wasm --config keep-recent.toml --grant grant.toml --plan plan.json")]
pub(crate) struct Prune {
    /// The policy that decides, a WebAssembly component
    #[arg(long, value_name = "P.wasm", value_hint = clap::ValueHint::FilePath)]
    policy: Option<PathBuf>,
    /// The policy's config: a value, JSON or text, or a file of JSON or TOML; later ones win
    #[arg(long, value_name = "FILE|KEY=VALUE", requires = "policy", value_parser = config_argument)]
    config: Vec<ConfigArgument>,
    /// What the policy may do, a file of TOML; without it, it may see everything and change nothing
    #[arg(long, value_name = "FILE", requires = "policy", value_hint = clap::ValueHint::FilePath)]
    grant: Option<PathBuf>,
    /// Show the plan, and change nothing
    #[arg(long, conflicts_with_all = ["plan", "yes"])]
    dry_run: bool,
    /// Write the plan for `larder apply`, and change nothing
    #[arg(long, value_name = "OUT.json", conflicts_with = "yes", value_hint = clap::ValueHint::FilePath)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

fn config_argument(text: &str) -> Result<ConfigArgument, std::convert::Infallible> {
    text.parse()
}

impl Prune {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let only_plans = self.dry_run || self.plan.is_some();
        if !only_plans {
            self.consent.require(context)?;
        }
        let local = context.open().await?;
        let plan = match &self.policy {
            Some(policy) => self.decide(&local, policy, context).await?,
            None => local.plan_prune().await?,
        };
        render::plan::remarks(&plan, &context.console);
        if only_plans {
            show(&plan, context)?;
            self.write(&plan, context)?;
        }
        if plan.is_empty() && !plan.denials.is_empty() {
            return Err(Failure::denied());
        }
        if only_plans {
            return Ok(Status::Done);
        }
        apply(&local, &plan, self.consent, context).await
    }

    /// What the policy wants, as far as it may.
    async fn decide(&self, local: &LocalBackend, policy: &Path, context: &Context) -> Result<Plan, Failure> {
        let bytes = input::read_bytes(policy)?;
        let run = PolicyRun::new(context.now())
            .with_config(input::config(&self.config)?)
            .with_grant(input::grant(self.grant.as_deref())?);
        let step = context.console.step("compiling the policy");
        let policy = Policy::load(&PolicyEngine::new()?, &bytes)?;
        drop(step);
        let step = context.console.step("running the policy");
        let evaluation = local.plan_policy(&policy, &run).await?;
        drop(step);
        let stats = evaluation.stats;
        context.console.detail(&format!(
            "the policy took {:.1} ms, {} and {} of memory",
            stats.duration.as_secs_f64() * 1000.0,
            render::count(usize::try_from(stats.host_calls).unwrap_or(usize::MAX), "host call"),
            render::size::size(stats.memory_bytes),
        ));
        Ok(evaluation.plan)
    }

    /// Writes the plan where that was asked for: all of it or, after a failure, nothing.
    fn write(&self, plan: &Plan, context: &Context) -> Result<(), Failure> {
        let Some(path) = &self.plan else { return Ok(()) };
        let json = plan.to_json()?;
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(json.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| Failure::unwritable(path, error))?;
        context.console.note(&format!("wrote `{0}`; to do what it says: `larder apply {0}`", path.display()));
        Ok(())
    }
}

/// Shows a plan that is not applied: every decision for people, the document for programs.
fn show(plan: &Plan, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        console.data(&plan.to_json()?)
    } else {
        console.data(&render::plan::decisions(plan, console))
    }
}
