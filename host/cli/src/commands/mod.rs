//! The commands, one per file: the arguments, whose comments are the help, the calls of the library, and the output.

mod apply;
mod consent;
mod deciding;
mod df;
mod explain;
mod generate;
mod history;
mod inspect;
mod intake;
mod job;
mod load;
mod ls;
mod pin;
mod policy;
mod prune;
#[cfg(feature = "registry")]
mod pull;
mod report;
mod rm;
mod room;
mod save;
mod verify;

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::logging::LogFormat;

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Df(df::Df),
    Rm(rm::Rm),
    Load(load::Load),
    #[cfg(feature = "registry")]
    Pull(pull::Pull),
    Save(save::Save),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Verify(verify::Verify),
    Prune(prune::Prune),
    Apply(apply::Apply),
    History(history::History),
    Explain(explain::Explain),
    Job(job::Job),
    Report(report::Report),
    Policy(policy::Policy),
    Completions(generate::Completions),
    Man(generate::Man),
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        match self {
            Self::Ls(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Df(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Save(command) => command.run(context).await,
            Self::Pin(command) => command.run(context).await,
            Self::Unpin(command) => command.run(context).await,
            Self::Load(command) => command.run(context).await,
            #[cfg(feature = "registry")]
            Self::Pull(command) => command.run(context).await,
            Self::Verify(command) => command.run(context).await,
            Self::Prune(command) => command.run(context).await,
            Self::Apply(command) => command.run(context).await,
            Self::History(command) => command.run(context).await,
            Self::Explain(command) => command.run(context).await,
            Self::Job(command) => command.run(context).await,
            Self::Report(command) => command.run(context).await,
            Self::Policy(command) => command.run(context).await,
            Self::Completions(command) => command.run(context),
            Self::Man(command) => command.run(context),
        }
    }

    /// Returns the form of the log, of a command that keeps one.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        match self {
            Self::Job(command) => command.log_format(),
            _ => None,
        }
    }
}

/// A record of failures: the command continues after each, prints it, and ends with the status of the first.
struct Failures<'a> {
    context: &'a Context,
    first: Option<Status>,
}

impl<'a> Failures<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, first: None }
    }

    /// Returns the value, or prints the failure and returns `None`.
    fn catch<T>(&mut self, result: Result<T, impl Into<Failure>>) -> Option<T> {
        result.map_err(|error| self.add(&error.into())).ok()
    }

    fn add(&mut self, failure: &Failure) {
        self.context.console.failure(failure);
        self.first.get_or_insert(failure.status());
    }

    /// Returns whether any work has failed.
    fn any(&self) -> bool {
        self.first.is_some()
    }

    /// Returns the exit status of the command, which is that of the first failure.
    fn status(self) -> Status {
        self.first.unwrap_or(Status::Done)
    }
}

/// Reads a snapshot of the cache, off the asynchronous runtime.
async fn look<T: Send + 'static>(
    local: &larder::LocalBackend,
    question: impl FnOnce(&mut dyn larder::snapshot::CacheSnapshot) -> larder::MicrosandboxResult<T>
    + Send
    + 'static,
) -> Result<T, Failure> {
    let mut source = local.snapshot().await?;
    match tokio::task::spawn_blocking(move || question(source.as_mut())).await {
        Ok(answer) => Ok(answer?),
        Err(error) => Err(Failure::failed("interrupted", "the cache could not be looked at", error)),
    }
}
