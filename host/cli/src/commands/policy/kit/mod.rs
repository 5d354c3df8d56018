//! What is done with the kit for authors: policies are begun and built.

mod build;
mod new;

use crate::cli::Context;
use crate::exit::{Failure, Status};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    New(new::New),
    Build(build::Build),
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        match self {
            Self::New(command) => command.run(context),
            Self::Build(command) => command.run(context),
        }
    }
}
