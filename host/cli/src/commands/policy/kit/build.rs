use std::path::{Path, PathBuf};

use larder_kit::{Built, Project, Tools};
use serde::Serialize;

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::places;
use crate::render::{plain, size};

/// Build the component of a policy
///
/// Tools that the language needs and this machine lacks are installed from the public registries, for this purpose alone.
/// For Rust, rustup adds the target `wasm32-unknown-unknown` to the toolchain.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy build
  larder policy build guest/policies/c -o keep-recent.wasm")]
pub(crate) struct Build {
    /// The policy's directory, the one with its `policy.toml`
    #[arg(value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// The file of the component [default: `DIR/NAME.wasm`]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// The directory of the tools that are installed [default: `$XDG_CACHE_HOME/larder/tools`, or else `~/.cache/larder/tools`]
    #[arg(
        long,
        value_name = "DIR",
        env = "LARDER_TOOLS",
        hide_env_values = true,
        value_hint = clap::ValueHint::DirPath
    )]
    tools: Option<PathBuf>,
}

/// What was built.
#[derive(Debug, Serialize)]
struct Output<'a> {
    file: &'a Path,
    language: &'static str,
    name: &'a str,
    size_bytes: u64,
}

impl Build {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let project = Project::open(&self.directory)?;
        let given = self.tools.filter(|directory| !directory.as_os_str().is_empty());
        let tools = given.or_else(places::tools).ok_or_else(|| {
            Failure::usage(
                "there is no place for tools without a home directory: give `--tools DIR`".to_owned(),
            )
        })?;
        // As it would be typed, rather than as an absolute path.
        let beside = self.directory.strip_prefix(".").unwrap_or(&self.directory);
        let default = || beside.join(format!("{}.wasm", project.name()));
        let output = self.output.unwrap_or_else(default);
        let mut progress = |line: &str| context.console.note(&plain(line));
        let Built { path, bytes } = project.build(&Tools::in_directory(tools), &output, &mut progress)?;
        if context.console.is_json() {
            let (name, language) = (project.name().as_str(), project.language().as_str());
            context.console.json(&Output { file: &path, language, name, size_bytes: bytes })?;
        } else {
            context.console.data(&format!("{}: {}\n", path.display(), size::size(bytes)))?;
        }
        Ok(Status::Done)
    }
}
