use larder::job::SCHEMA;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Print the JSON Schema of the job file, for editors
///
/// An editor that knows TOML uses it where the file begins with `#:schema ./larder.schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job schema > larder.schema.json")]
pub(crate) struct Schema;

impl Schema {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        context.console.data(SCHEMA)?;
        Ok(Status::Done)
    }
}
