//! The commands that print data of the parser itself: completions and manual pages.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::cli::{Context, parser};
use crate::exit::{Failure, Status};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder completions bash > ~/.local/share/bash-completion/completions/larder
  larder completions zsh > ~/.zfunc/_larder")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder man | man -l -
  larder man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write `larder.1`, `larder-ls.1` and so on into this directory
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut parser(), "larder", &mut script);
        context.console.data(&String::from_utf8_lossy(&script))?;
        Ok(Status::Done)
    }
}

impl Man {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let Some(directory) = self.directory else {
            let mut page = Vec::new();
            clap_mangen::Man::new(parser())
                .render(&mut page)
                .map_err(|error| Failure::failed("output", "could not make the manual page", error))?;
            context.console.data(&String::from_utf8_lossy(&page))?;
            return Ok(Status::Done);
        };
        fs::create_dir_all(&directory)
            .and_then(|()| clap_mangen::generate_to(parser(), &directory))
            .map_err(|error| Failure::unwritable(&directory, error))?;
        Ok(Status::Done)
    }
}
