use larder::policy::{ComponentReport, Description, Policy, PolicyEngine};
use serde::Serialize;

use super::schema;
use crate::cli::Context;
use crate::commands::Failures;
use crate::console::Console;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::render::{plain, size};
use crate::source::PolicySource;

/// Check whether files are policies that this host runs
///
/// Of a policy, shows its name, version and summary, the keys of its config, its imports, and the version of the contract
/// that it was built for. Of any other file, shows what it is, and what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy check keep-recent.wasm
  larder policy check *.wasm --format json")]
pub(crate) struct Check {
    /// The policies: names from `larder policy list`, or paths
    #[arg(required = true, value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policies: Vec<PolicySource>,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// What is known of one of them.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    /// What the policy says of itself; absent where it does not run.
    description: Option<Description>,
    /// Digest of the component; absent where it is no policy.
    hash: Option<String>,
    policy: &'a PolicySource,
    /// Why this host does not run it.
    problem: Option<Problem>,
    #[serde(flatten)]
    report: ComponentReport,
}

#[derive(Debug, Serialize)]
struct Problem {
    error: String,
    kind: &'static str,
}

impl Check {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let engine = self.code_cache.engine()?;
        let mut failures = Failures::new(context);
        let mut checked = Vec::new();
        for policy in &self.policies {
            checked.extend(failures.catch(check(&engine, policy, &context.console).await));
        }
        if context.console.is_json() {
            context.console.json(&checked)?;
        } else {
            let mut text: String = checked.iter().map(|checked| checked.describe(&context.console)).collect();
            if text.ends_with("\n\n") {
                text.pop();
            }
            context.console.data(&text)?;
        }
        let all_run = checked.iter().all(|checked| checked.problem.is_none());
        Ok(if all_run { failures.status() } else { Status::Policy })
    }
}

async fn check<'a>(
    engine: &PolicyEngine,
    source: &'a PolicySource,
    console: &Console,
) -> Result<Checked<'a>, Failure> {
    let bytes = source.bytes()?;
    let report = ComponentReport::of(&bytes);
    let step = console.step("loading the policy");
    let policy = Policy::load(engine, bytes).await;
    let hash = policy.as_ref().ok().map(|policy| policy.hash().to_string());
    let description = match policy {
        Ok(policy) => policy.description().await.cloned(),
        Err(error) => Err(error),
    };
    drop(step);
    let (description, problem) = match description {
        Ok(description) => (Some(description), None),
        Err(error) => (None, Some(Problem::of(error.into()))),
    };
    Ok(Checked { description, hash, policy: source, problem, report })
}

impl Problem {
    /// The sentence alone: where in its code a policy broke off is for who debugs it.
    fn of(failure: Failure) -> Self {
        let error = failure.messages().collect::<Vec<_>>().join(": ");
        Self { error: error.lines().next().unwrap_or_default().to_owned(), kind: failure.kind() }
    }
}

impl Checked<'_> {
    /// One sentence; of a component also what is known of it, and an empty line.
    fn describe(&self, console: &Console) -> String {
        let policy = self.policy;
        let mut text = match &self.problem {
            None => format!("{policy}: this host runs it\n"),
            Some(problem) => format!("{policy}: {}\n", plain(&problem.error)),
        };
        let mut line = |key: &str, value: &str| text.push_str(&format!("  {key:<8} {}\n", plain(value)));
        if let Some(description) = &self.description {
            line("policy", &format!("{} {}", description.name, description.version));
            line("summary", &description.summary);
        }
        let report = &self.report;
        if report.imports.is_empty() && report.exports.is_empty() {
            // It is no component, and the sentence above says what it is.
            return text;
        }
        line("size", &size::size(report.size_bytes));
        if let Some(version) = &report.wit_version {
            line("contract", &format!("larder:image@{version}"));
        }
        if let Some(hash) = &self.hash {
            line("hash", hash);
        }
        line("imports", &list(&report.imports));
        line("exports", &list(&report.exports));
        if let Some(description) = &self.description {
            text += &schema::describe(&description.config_schema, console);
        }
        text.push('\n');
        text
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
