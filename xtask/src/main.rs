//! `cargo xtask TASK`: the tasks behind the README's commands.
//!
//! Each installs what it needs and is missing, and can be run again and again.

mod bench;
mod demo;
mod fuzz;
mod guests;
mod peer;
mod shell;
mod test;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The tasks of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures the image API on homes of 1,000 and 10,000 images, beside plain SQLite and plain `unlink`, loading
    /// images, and policies. Where `cargo xtask peer` has run, microsandbox is measured beside.
    Bench {
        /// Which: `images`, `load`, `policies`, or `languages`, which writes the table of `docs/languages.md`; all
        /// where none is given.
        names: Vec<String>,
    },
    /// Shows the main job on a copy of a real home: load, list, dry run, plan, apply, explain, save.
    Demo,
    /// Looks for bytes that make taking images in panic, hang or take too much memory.
    Fuzz {
        /// Which targets; all of them where none is given.
        #[arg(value_parser = fuzz::TARGETS.map(|(name, _)| name))]
        targets: Vec<String>,
        /// For how long each runs.
        #[arg(long, default_value_t = fuzz::A_MINUTE.as_secs())]
        seconds: u64,
    },
    /// Builds policies to `target/policies/NAME.wasm`.
    Guests {
        /// Their names; all of them where none is given.
        names: Vec<String>,
    },
    /// Builds the program that asks microsandbox's own SDK, and runs the tests of both on the same homes.
    Peer,
    /// Runs everything that CI runs: format, lints, docs, dependencies, all tests, a minute of each fuzz target, the
    /// demo.
    Test,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench { names } => bench::run_benches(&names),
        Task::Demo => demo::run_demo(),
        Task::Fuzz { targets, seconds } => {
            fuzz::run_targets(&targets, Duration::from_secs(seconds), fuzz::Start::Random)
        }
        Task::Guests { names } => {
            guests::run(&names.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
        }
        Task::Peer => peer::run_peer(),
        Task::Test => test::run_all(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
