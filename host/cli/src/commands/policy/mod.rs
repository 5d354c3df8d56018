//! What authors and operators of policies do: one file a command.

mod explain;
mod test;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Write, test, look at and measure policies
///
/// A policy is a WebAssembly component that decides what of the cache goes. It runs under a grant, and only proposes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy test
  larder policy explain keep-recent.wasm --config keep=2
  larder policy explain keep-recent.wasm --config keep=2 --suggest-grant > grant.toml")]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Test(test::Test),
    Explain(explain::Explain),
}

impl Policy {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        match self.command {
            Command::Test(command) => command.run(context),
            Command::Explain(command) => command.run(context).await,
        }
    }
}
