//! `cargo xtask TASK`: runs the tasks behind the README's commands.
//!
//! Each task installs missing tools, and can be repeated. This program has almost no dependencies, so it starts in
//! seconds. Larger tools are programs of their own, which the task builds and runs.

mod bench;
mod build;
mod demo;
mod faults;
mod fuzz;
mod guests;
mod page;
mod peer;
mod shell;
mod steps;
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
    /// Builds the program as it is released, target/release/larder, with the policies inside that come with it.
    Build,
    /// Does what `test` does, with every language, and the rest that a change is judged by: lints of other
    /// configurations, documentation, dependencies, fuzz targets, the demo, and microsandbox as a peer where it is built.
    Ci,
    /// Shows the main job on a disk that is nearly full: what takes the space, what a policy removes, and why.
    Demo,
    /// Fails and kills at every call that the program makes on a home, prints the table of these faults, and lets two and
    /// eight programs share a home for a minute each.
    Faults,
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
    /// Looks at pages of `larder report` in Chromium, and makes the picture of the README, docs/page.png.
    Page,
    /// Builds the program that asks microsandbox's own SDK, and runs the tests of both on the same homes.
    Peer,
    /// Checks format and lints, and runs all tests of the workspace.
    Test,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench { names } => bench::run_benches(&names),
        Task::Build => build::run_build(),
        Task::Ci => test::run_ci(),
        Task::Demo => demo::run_demo(),
        Task::Faults => faults::run_faults(),
        Task::Fuzz { targets, seconds } => {
            fuzz::run_fuzz(&targets, Duration::from_secs(seconds), fuzz::Start::Random)
        }
        Task::Guests { names } => guests::run_guests(&names),
        Task::Page => page::run_page(),
        Task::Peer => peer::run_peer(),
        Task::Test => test::run_test(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
