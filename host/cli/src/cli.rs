//! The arguments that every command has, and running a command to its exit status.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{CommandFactory as _, Parser};
use larder::LocalBackend;
use larder::backend::LocalBackendBuilder;

use crate::builtin::UnknownPolicy;
use crate::commands::Command;
use crate::console::{Console, Format, Verbosity};
use crate::exit::{Failure, Status};
use crate::interrupt::Interrupts;
use crate::logging;
use crate::render::is_harmless;

/// An OCI image cache for microVM sandboxes, cleaned up by small WebAssembly programs.
///
/// Larder works on the homes that microsandbox makes, in place and beside a running `msb`. Data goes to standard
/// output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done, 1 failed, 2 usage, 3 no such image, 4 in use, 5 the policy failed or broke a \
                  limit, 6 denied by the grant, 7 applied, but some entries were spared.",
    after_long_help = "\
Exit status:
  0  done
  1  failed
  2  usage: the arguments, or a file that they name, cannot be used as they are
  3  no such image
  4  an image is in use
  5  the policy failed or broke a limit
  6  denied by the grant: a removal was refused, and nothing went
  7  applied, but some entries were spared
`larder job status --check` has others, which its help names.

Examples:
  larder ls --unused --sort size
  larder prune --dry-run
  larder prune --policy keep-recent --config keep=2 --dry-run
  larder prune --policy keep-recent --config keep=2 --grant grant.toml --plan plan.json
  larder apply plan.json"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The home [default: `$MSB_HOME`, or else `~/.microsandbox`]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    home: Option<PathBuf>,
    /// Tables for people, or JSON for programs
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    format: Format,
    /// Print data and errors only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print what is being done; twice, for debugging
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// What counts as now, for tests and simulations
    #[arg(long, global = true, hide = true, value_name = "RFC3339")]
    now: Option<DateTime<Utc>>,
}

/// The state that a command works with.
pub(crate) struct Context {
    pub(crate) console: Console,
    home: Option<PathBuf>,
    now: Option<DateTime<Utc>>,
    interrupts: OnceCell<Interrupts>,
}

impl Context {
    /// Runs `work` until it completes or the program is interrupted by Ctrl-C or `SIGTERM`. An interrupt drops the
    /// work, which cancels it. The program waits for the clean-up of the work, and a second interrupt ends it at once.
    pub(crate) async fn interruptible<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let interrupts = self.interrupts()?;
        tokio::select! {
            biased;
            () = interrupts.asked() => Err(Failure::interrupted()),
            result = work => result.map_err(Into::into),
        }
    }

    /// Returns the interrupts of the program. The first of them no longer ends it.
    pub(crate) fn interrupts(&self) -> Result<&Interrupts, Failure> {
        if let Some(interrupts) = self.interrupts.get() {
            return Ok(interrupts);
        }
        let listening = Interrupts::listen()
            .map_err(|error| Failure::failed("signals", "could not listen for signals", error))?;
        Ok(self.interrupts.get_or_init(|| listening))
    }

    /// Opens the home, which has to exist.
    pub(crate) async fn open(&self) -> Result<LocalBackend, Failure> {
        self.build(LocalBackend::builder().existing()).await
    }

    /// Opens the home, and creates it if it does not exist.
    pub(crate) async fn open_or_make(&self) -> Result<LocalBackend, Failure> {
        self.build(LocalBackend::builder()).await
    }

    async fn build(&self, mut builder: LocalBackendBuilder) -> Result<LocalBackend, Failure> {
        if let Some(home) = &self.home {
            builder = builder.home(home);
        }
        if let Some(now) = self.now {
            builder = builder.clock(move || now);
        }
        Ok(builder.build().await?)
    }

    /// Returns the current time, or the time of `--now`.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.now.unwrap_or_else(Utc::now)
    }
}

/// Runs the program, from the arguments to the exit status.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let Global { home, format, quiet, verbose, now } = cli.global;
    let verbosity = if quiet { Verbosity::Quiet } else { Verbosity::from_count(verbose) };
    let console = Console::new(format, verbosity);
    match cli.command.log_format() {
        Some(format) => logging::install_service(format, verbosity),
        None => logging::install(&console),
    }
    let context = Context { console, home, now, interrupts: OnceCell::new() };
    let fail = |failure: Failure| {
        context.console.failure(&failure);
        failure.status()
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let message = "could not start the asynchronous runtime";
            return fail(Failure::failed("runtime", message, error)).into();
        }
    };
    let status = runtime.block_on(cli.command.run(&context)).unwrap_or_else(fail);
    // What was cancelled cleans up after itself. That may take a moment, and the error is out by then.
    drop(runtime);
    status.into()
}

/// Prints an error of the parser, which includes help and version, and returns the exit status.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Whoever closed the output has seen enough of it.
        let _ = error.print();
        return Status::Done.into();
    }
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut format = arguments.iter().skip_while(|argument| *argument != "--format");
    let json = arguments.iter().any(|argument| argument == "--format=json")
        || format.nth(1).is_some_and(|format| format == "json");
    let format = if json { Format::Json } else { Format::Human };
    let console = Console::new(format, Verbosity::Normal);
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<UnknownPolicy>());
    match source {
        Some(unknown) => console.failure(&unknown.into()),
        // The parser quotes arguments as they are: those of a pattern of the shell may be names of anything.
        None if json || !arguments.iter().all(|argument| argument.chars().all(is_harmless)) => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            console.failure(&Failure::usage(first.trim_start_matches("error: ").to_owned()));
        }
        None => {
            let _ = error.print();
        }
    }
    Status::Usage.into()
}

/// Returns the parser, for completions and manual pages.
pub(crate) fn parser() -> clap::Command {
    Cli::command()
}
