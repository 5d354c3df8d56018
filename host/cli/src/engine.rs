//! Loading policies for commands, and their compiled code.

use std::path::PathBuf;

use larder::policy::{Policy, PolicyEngine};

use crate::console::Console;
use crate::exit::Failure;
use crate::places;
use crate::source::PolicySource;

/// Where compiled policies are kept, so that each is compiled once on a machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CodeCache {
    /// The directory of compiled policies [default: `$XDG_CACHE_HOME/larder/code`, or else `~/.cache/larder/code`]
    #[arg(
        long,
        value_name = "DIR",
        env = "LARDER_CODE_CACHE",
        hide_env_values = true,
        value_hint = clap::ValueHint::DirPath
    )]
    code_cache: Option<PathBuf>,
}

impl CodeCache {
    /// Returns an engine, which keeps compiled code if there is a directory for it.
    pub(crate) fn engine(&self) -> Result<PolicyEngine, Failure> {
        let mut builder = PolicyEngine::builder();
        if let Some(directory) = self.directory() {
            builder = builder.code_cache(directory);
        }
        Ok(builder.build()?)
    }

    /// Returns the directory, or `None` for a user without a home.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let given = self.code_cache.clone().filter(|directory| !directory.as_os_str().is_empty());
        given.or_else(places::code)
    }
}

/// Loads a policy.
pub(crate) async fn load(
    engine: &PolicyEngine,
    source: &PolicySource,
    console: &Console,
) -> Result<Policy, Failure> {
    let bytes = source.bytes()?;
    let _step = console.step("loading the policy");
    Policy::load(engine, bytes).await.map_err(|error| Failure::from(error).of_policy("load", source))
}
