use larder::policy::{Description, Policy, PolicyEngine};
use serde::Serialize;

use super::schema;
use crate::builtin::{self, BUILTINS, Builtin};
use crate::cli::Context;
use crate::commands::Failures;
use crate::console::Console;
use crate::engine::CodeCache;
use crate::exit::{Failure, NO_BUILTINS, Status};
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, plain, short_digest, size};

/// List the policies that come with the program
///
/// A command that takes a policy takes the name of one of them. Name, version and summary are those that the policy states.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy list
  larder policy list --schema keep-recent
  larder policy list --format json")]
pub(crate) struct List {
    /// Show only this policy, with the keys of its config
    #[arg(long, value_name = "NAME", value_parser = builtin::find)]
    schema: Option<&'static Builtin>,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// A policy that comes with the program.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    description: Description,
    /// How large the component is.
    bytes: u64,
    /// Digest of the component, in hexadecimal digits.
    sha256: String,
}

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let console = &context.console;
        let engine = self.code_cache.engine()?;
        let mut failures = Failures::new(context);
        let builtins = self.schema.map_or(BUILTINS, std::slice::from_ref);
        let step = console.step("loading the policies");
        let mut listed = Vec::new();
        for builtin in builtins {
            listed.extend(failures.catch(list(&engine, builtin).await));
        }
        drop(step);
        if console.is_json() {
            console.json(&listed)?;
        } else if self.schema.is_some() {
            console.data(&listed.iter().map(|policy| policy.describe(console)).collect::<String>())?;
        } else {
            console.data(&table(&listed, console))?;
        }
        if BUILTINS.is_empty() {
            console.note(NO_BUILTINS);
        }
        Ok(failures.status())
    }
}

async fn list(engine: &PolicyEngine, builtin: &Builtin) -> Result<Listed, Failure> {
    let refused = |error| Failure::from(error).of_policy("load", &builtin.name);
    let policy = Policy::load(engine, builtin.bytes).await.map_err(refused)?;
    let description = policy.description().await.map_err(refused)?.clone();
    Ok(Listed {
        // What it is typed as, even where the component calls itself otherwise.
        description: Description { name: builtin.name.to_owned(), ..description },
        bytes: builtin.bytes.len() as u64,
        sha256: policy.hash().as_str().trim_start_matches("sha256:").to_owned(),
    })
}

fn table(listed: &[Listed], console: &Console) -> String {
    let columns = ["NAME", "VERSION", "SHA-256", "CONFIG", "SUMMARY"].map(|name| (name, Align::Left));
    let mut table = Table::new(columns, console.width());
    for Listed { description, sha256, .. } in listed {
        let keys = schema::keys(&description.config_schema).join(", ");
        table.row([
            description.name.clone(),
            description.version.clone(),
            short_digest(sha256),
            if keys.is_empty() { NOTHING.to_owned() } else { keys },
            description.summary.clone(),
        ]);
    }
    table.render()
}

impl Listed {
    /// What is known of it, line by line, and the keys of its config.
    fn describe(&self, console: &Console) -> String {
        let Description { name, version, summary, config_schema } = &self.description;
        let size = size::size(self.bytes);
        let lines = [
            ("policy", format!("{name} {version}")),
            ("summary", summary.clone()),
            ("size", size),
            ("sha256", self.sha256.clone()),
        ];
        let lines = lines.map(|(key, value)| format!("  {key:<8} {}\n", plain(&value)));
        lines.concat() + &schema::describe(config_schema, console)
    }
}
