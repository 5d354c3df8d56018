use std::path::PathBuf;
use std::time::Instant;

use larder::policy::{CodeOrigin, Limits, PolicyEngine};
use serde::Serialize;

use super::milliseconds;
use crate::cli::Context;
use crate::commands::Failures;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::input;
use crate::source::PolicySource;

/// Compile policies before they are needed
///
/// Stores the compiled code where every command of `larder` finds it. Run this after a policy was installed on a host, so
/// that its first run does not wait for the compiler.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy warm /etc/larder/policies/*.wasm
  larder policy warm keep-recent --grant grant.toml")]
pub(crate) struct Warm {
    /// The policies: names from `larder policy list`, or paths
    #[arg(required = true, value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policies: Vec<PolicySource>,
    /// The grant that they will run under: `fuel` and `stack` in its `[limits]` are compiled in
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    grant: Option<PathBuf>,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// What became of one policy.
#[derive(Debug, Serialize)]
struct Warmed<'a> {
    /// Wall time in milliseconds.
    duration_ms: u64,
    /// Whether it was compiled now or had been before.
    origin: CodeOrigin,
    policy: &'a PolicySource,
}

impl Warm {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let limits = self.grant.as_deref().map(input::grant).transpose()?.unwrap_or_default().limits;
        let engine = self.code_cache.engine()?;
        let mut failures = Failures::new(context);
        let mut warmed = Vec::new();
        for policy in &self.policies {
            let clock = Instant::now();
            let step = context.console.step("compiling the policy");
            let origin = warm(&engine, policy, &limits).await;
            drop(step);
            let Some(origin) = failures.catch(origin) else { continue };
            let duration = clock.elapsed();
            if !context.console.is_json() {
                let what = match origin {
                    CodeOrigin::Compiled => "compiled in",
                    CodeOrigin::Cached => "was there already, seen in",
                };
                context.console.data(&format!("{policy}: {what} {}\n", milliseconds(duration)))?;
            }
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            warmed.push(Warmed { duration_ms, origin, policy });
        }
        if context.console.is_json() {
            context.console.json(&warmed)?;
        } else if let Some(directory) = self.code_cache.directory().filter(|_| !warmed.is_empty()) {
            context.console.note(&format!("compiled code is kept in `{}`", directory.display()));
        }
        Ok(failures.status())
    }
}

async fn warm(engine: &PolicyEngine, source: &PolicySource, limits: &Limits) -> Result<CodeOrigin, Failure> {
    let bytes = source.bytes()?;
    engine.warm(bytes, limits).await.map_err(|error| Failure::from(error).of_policy("compile", source))
}
