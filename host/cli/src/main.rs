//! `larder`: an OCI image cache at the command line.
//!
//! - `builtin`: the policies that come with the program
//! - `cli`: the arguments that every command has
//! - `commands`: one file a command: its arguments, what it asks of the library, what it shows
//! - `console`: the only place that prints, asks, or knows whether there is a terminal
//! - `engine`: how policies are loaded
//! - `exit`: what each error of the library is at the command line: an exit status and a hint
//! - `interrupt`: Ctrl-C
//! - `input`, `output`: the files that commands read and write
//! - `places`: where compiled policies and tools are kept
//! - `progress`: images on their way into the cache or out of it
//! - `render`: tables, sizes and ages for people
//! - `registry`: who is logged in to registries, and which proxies there are
//! - `scenario`: caches written down in files, and what a policy is expected to decide about them
//! - `source`: where a policy comes from, a file or the program

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
mod source;

use std::process::ExitCode;

fn main() -> ExitCode {
    raise_descriptor_limit();
    cli::main()
}

/// Raises the limit of open file descriptors as far as this process may: each lease takes one, and a removal holds as
/// many as it can. Where it cannot be raised, removals are smaller.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
