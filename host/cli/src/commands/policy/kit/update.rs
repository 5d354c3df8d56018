use std::path::PathBuf;

use larder_kit::Project;
use serde::Serialize;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Bring the contract and the SDK of a policy up to date with this program
///
/// These are the files in `wit/` and, for Rust, in `vendor/larder-guest/`. Changes to them are lost. All other files of the
/// policy are unchanged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy update && larder policy build && larder policy test")]
pub(crate) struct Update {
    /// The policy's directory, the one with its `policy.toml`
    #[arg(value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

/// What was brought up to date.
#[derive(Debug, Serialize)]
struct Output<'a> {
    /// The files that were written or removed, relative to the directory.
    changed: &'a [PathBuf],
    name: &'a str,
}

impl Update {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let project = Project::open(&self.directory)?;
        let changed = project.update()?;
        if context.console.is_json() {
            context.console.json(&Output { changed: &changed, name: project.name().as_str() })?;
        } else if changed.is_empty() {
            context.console.data(&format!("`{}` is up to date\n", project.name()))?;
        } else {
            let lines = changed.iter().map(|path| format!("{}\n", path.display()));
            context.console.data(&lines.collect::<String>())?;
        }
        Ok(Status::Done)
    }
}
