//! The commands of the kit for authors: policies are begun, built and brought up to date.

mod build;
mod languages;
mod new;
mod update;

use crate::cli::Context;
use crate::exit::{Failure, Status};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    New(new::New),
    Build(build::Build),
    Update(update::Update),
    Languages(languages::Languages),
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        match self {
            Self::New(command) => command.run(context),
            Self::Build(command) => command.run(context),
            Self::Update(command) => command.run(context),
            Self::Languages(command) => command.run(context),
        }
    }
}
