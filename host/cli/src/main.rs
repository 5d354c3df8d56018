//! `larder`: an OCI image cache at the command line.
//!
//! - `cli`: the arguments that every command has
//! - `commands`: one file a command: its arguments, what it asks of the library, what it shows
//! - `console`: the only place that prints, asks, or knows whether there is a terminal
//! - `exit`: what each error of the library is at the command line: an exit status and a hint
//! - `input`: the files that commands read
//! - `progress`: images on their way into the cache
//! - `render`: tables, sizes and ages for people

mod cli;
mod commands;
mod console;
mod exit;
mod input;
mod logging;
mod progress;
mod render;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
