//! Sweeps a home with a policy: what goes and why, and then, if asked to, away with it.
//!
//! ```sh
//! cargo xtask guests
//! cargo run --example sweep -- ~/.microsandbox target/policies/keep-recent.wasm          # says what it would do
//! cargo run --example sweep -- ~/.microsandbox target/policies/keep-recent.wasm --apply  # and does it
//! ```
//!
//! It shows what an embedder meets: one engine with a code cache for the process, a grant written in Rust, errors told
//! apart, a plan that is looked at before it is applied, and the report afterwards.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use larder::policy::{
    Decision, Evaluation, Grant, GrantDocument, Guard, Limits, Policy, PolicyEngine, PolicyError, PolicyRun,
    Share,
};
use larder::{LocalBackend, MicrosandboxError};

/// What the command line says.
struct Arguments {
    home: PathBuf,
    policy: PathBuf,
    apply: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(home), Some(policy)) = (words.next(), words.next()) else {
        eprintln!("usage: sweep HOME POLICY.wasm [--apply]");
        return ExitCode::from(2);
    };
    let apply = words.next().is_some_and(|word| word == "--apply");
    match sweep(Arguments { home: home.into(), policy: policy.into(), apply }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn sweep(Arguments { home, policy, apply }: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let local = LocalBackend::builder().home(&home).existing().build().await?;

    // One engine for the process. With a code cache the next process starts this policy in milliseconds.
    let code = std::env::temp_dir().join(format!("sweep-code-{}", rustix::process::geteuid().as_raw()));
    let engine = PolicyEngine::builder().code_cache(code).build()?;
    let policy = Policy::load(&engine, std::fs::read(policy)?).await?;
    let about = policy.description().await?;
    println!("{} {}: {}", about.name, about.version, about.summary);

    let run = PolicyRun::new(chrono::Utc::now()).with_grant(grant()?);
    let Evaluation { plan, stats, .. } = local.plan_policy(&policy, &run).await?;
    for entry in &plan.entries {
        let decision = match entry.decision {
            Decision::Remove => "remove",
            Decision::Keep => "keep  ",
        };
        println!("{decision} {}: {}", entry.reference, entry.reason);
    }
    for denial in &plan.denials {
        println!("denied: {}; allowed by {}", denial.message, denial.allowed_by);
    }
    println!("{} host calls in {:?}; this would free {} bytes", stats.host_calls, stats.duration, plan.bytes);

    if apply {
        // Each image is checked again under its lease: what has come into use since is spared.
        let report = local.apply(&plan).await?;
        for spared in &report.spared {
            println!("spared {}: {}", spared.reference, spared.reason);
        }
        println!("removed {}, spared {}", report.removed.len(), report.spared.len());
    }
    Ok(())
}

/// It may see everything and remove what is acme's, up to three quarters of the cache, but nothing that is younger than a day.
fn grant() -> Result<GrantDocument, Box<dyn std::error::Error>> {
    let grant =
        Grant::default().with_remove(vec!["docker.io/acme/**".parse()?]).with_max_share(Share::percent(75));
    let guard = Guard::default().with_min_age(Duration::from_secs(24 * 3600));
    let limits = Limits::default().with_time(Duration::from_secs(2));
    Ok(GrantDocument::default().with_grant(grant).with_guard(guard).with_limits(limits))
}

/// What an embedder does about each kind of error; most say all that there is to say themselves.
fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let policy =
        error.downcast_ref::<PolicyError>().or_else(|| match error.downcast_ref::<MicrosandboxError>() {
            Some(MicrosandboxError::Policy(error)) => Some(error),
            _ => None,
        });
    match policy {
        Some(PolicyError::OverBudget(overruns)) => {
            let caps: Vec<String> = overruns.iter().map(ToString::to_string).collect();
            format!("nothing was changed, since the policy wants too much: {}", caps.join("; "))
        }
        Some(error @ PolicyError::Limit { limit, .. }) => format!("{error} (raise `{limit}` in `limits`)"),
        _ => error.to_string(),
    }
}
