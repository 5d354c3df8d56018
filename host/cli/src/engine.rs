//! Policies as commands load them.

use std::path::{Path, PathBuf};

use larder::policy::{Policy, PolicyEngine};

use crate::console::Console;
use crate::exit::Failure;
use crate::input;

/// Where compiled policies are kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CodeCache {
    /// Where compiled policies are kept [default: `$XDG_CACHE_HOME/larder/code`, or else `~/.cache/larder/code`]
    #[arg(long, value_name = "DIR", env = "LARDER_CODE_CACHE", hide_env_values = true, value_hint = clap::ValueHint::DirPath)]
    code_cache: Option<PathBuf>,
}

impl CodeCache {
    /// An engine.
    pub(crate) fn engine(&self) -> Result<PolicyEngine, Failure> {
        Ok(PolicyEngine::new()?)
    }
}

/// Loads a policy from a file.
pub(crate) fn load(engine: &PolicyEngine, path: &Path, console: &Console) -> Result<Policy, Failure> {
    let bytes = input::read_bytes(path)?;
    let _step = console.step("loading the policy");
    Policy::load(engine, &bytes).map_err(|error| Failure::from(error).of_file("load", path))
}
