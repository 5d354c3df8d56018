//! `larder`: an OCI image cache at the command line.
//!
//! - `builtin`: the policies that are compiled into the program
//! - `cli`: the arguments that every command has
//! - `commands`: one file a command: its arguments, its calls of the library, its output
//! - `console`: the only code that prints, prompts, or checks for a terminal
//! - `engine`: loading policies
//! - `exit`: an exit status and a hint for each error of the library
//! - `interrupt`: Ctrl-C and `SIGTERM`
//! - `input`, `output`: the files that commands read and write
//! - `places`: the directories for compiled policies and tools
//! - `progress`: the progress of loads, pulls and saves
//! - `render`: tables, sizes and ages for people
//! - `registry`: the credentials that other programs keep, and proxies
//! - `scenario`: files that describe caches and the expected decisions of a policy
//! - `service`: jobs that run by themselves
//! - `source`: the source of a policy: a file or the program
//! - `web`: metrics and a page, as files and over HTTP

mod builtin;
mod cli;
mod commands;
mod console;
mod engine;
mod exit;
mod input;
mod interrupt;
mod logging;
mod output;
mod places;
mod progress;
#[cfg(feature = "registry")]
mod registry;
mod render;
mod scenario;
mod service;
mod source;
mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    raise_descriptor_limit();
    cli::main()
}

/// Raises the limit of open file descriptors as far as this process may: each lease takes one, and a removal holds as
/// many as it can. If it cannot be raised, removals are smaller.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
