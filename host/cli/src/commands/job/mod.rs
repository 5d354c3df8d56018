//! What operators do with jobs: one file a command.

mod check;
mod install;
mod list;
pub(super) mod policies;
mod run;
mod schema;
mod start;
mod status;

use std::path::{Path, PathBuf};

use larder::LocalBackend;
use larder::job::{Finding, Findings, JobFile, Severity};

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::input;
use crate::logging::LogFormat;
use crate::places;
use crate::render::plain;

/// Keep the cache within bounds by jobs that are written down once
///
/// A job file has the guard of the home and a table for each job: when it runs, which policies decide, and what they may
/// do. What a job removes is agreed to by writing it down: a run does not ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job check
  larder job run pressure --dry-run
  larder job run nightly
  larder job start")]
pub(crate) struct Job {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Check),
    Install(install::Install),
    List(list::List),
    Run(run::Run),
    Schema(schema::Schema),
    Start(start::Start),
    Status(status::Status),
}

impl Job {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        match self.command {
            Command::Check(command) => command.run(context).await,
            Command::Install(command) => command.run(context).await,
            Command::List(command) => command.run(context).await,
            Command::Run(command) => command.run(context).await,
            Command::Schema(command) => command.run(context),
            Command::Start(command) => Ok(command.run(context).await),
            Command::Status(command) => command.run(context).await,
        }
    }

    /// Returns the form of the log, of a command that keeps one.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        match &self.command {
            Command::Start(command) => Some(command.log_format()),
            _ => None,
        }
    }
}

/// The place of the job file.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FileArgument {
    /// The job file [default: `larder.toml` in the home]
    #[arg(long, value_name = "FILE", env = "LARDER_FILE", hide_env_values = true, value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

/// A job file that was read.
pub(super) struct Read {
    path: PathBuf,
    pub(super) file: JobFile,
}

impl FileArgument {
    /// Reads the file. Returns `None` if no other one is named and the home has none.
    pub(super) fn read_if_there(&self, local: &LocalBackend) -> Result<Option<Read>, Failure> {
        let is_named = self.file.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        if !is_named && !local.home().join("larder.toml").exists() {
            return Ok(None);
        }
        self.read(local).map(Some)
    }

    /// Returns the path of the file.
    fn path(&self, local: &LocalBackend) -> PathBuf {
        places::job_file(self.file.as_deref(), local)
    }

    /// Reads the file.
    fn read(&self, local: &LocalBackend) -> Result<Read, Failure> {
        let path = self.path(local);
        let text = input::read(&path).map_err(|failure| {
            failure
                .with_hint("a job file is `larder.toml` in the home, or what `--file` or `LARDER_FILE` names")
        })?;
        match JobFile::parse(&text) {
            Ok(file) => Ok(Read { path, file }),
            Err(findings) => Err(refused(&path, &findings)),
        }
    }
}

/// Returns the failure of a file that cannot be used: everything that is wrong with it.
fn refused(path: &Path, Findings(findings): &Findings) -> Failure {
    let lines: Vec<String> = findings.iter().map(|finding| line(path, finding)).collect();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let count = crate::render::count(errors, "error");
    Failure::usage(format!("{count} in the job file\n{}", lines.join("\n"))).with_lines()
}

/// Such as ``larder.toml:3:1: `jobs.nightly.polcy`: no such key; did you mean `policy`?``
fn line(path: &Path, finding: &Finding) -> String {
    plain(&format!("{}{finding}", path.display()))
}
