//! What authors and operators of policies do: one file a command.

mod bench;
mod check;
mod explain;
#[cfg(feature = "kit")]
mod kit;
mod list;
mod schema;
mod test;
mod warm;

use std::time::Duration;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Write, test, look at and measure policies
///
/// A policy is a WebAssembly component that decides what of the cache goes. It runs under a grant, and only proposes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = if cfg!(feature = "kit") {
    "\
Examples:
  larder policy list
  larder policy explain keep-recent --config keep=2 --suggest-grant > grant.toml
  larder policy new demo --lang python && cd demo && larder policy build && larder policy test
  larder policy check demo.wasm"
} else {
    "\
Examples:
  larder policy list
  larder policy explain keep-recent --config keep=2 --suggest-grant > grant.toml
  larder policy check demo.wasm"
};

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::List),
    #[cfg(feature = "kit")]
    #[command(flatten)]
    Kit(kit::Command),
    Check(check::Check),
    Test(test::Test),
    Bench(bench::Bench),
    Explain(explain::Explain),
    Warm(warm::Warm),
}

impl Policy {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        match self.command {
            Command::List(command) => command.run(context).await,
            #[cfg(feature = "kit")]
            Command::Kit(command) => command.run(context),
            Command::Check(command) => command.run(context).await,
            Command::Test(command) => command.run(context).await,
            Command::Bench(command) => command.run(context).await,
            Command::Explain(command) => command.run(context).await,
            Command::Warm(command) => command.run(context).await,
        }
    }
}

/// Such as `12.345 ms`.
fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}
