//! Policies as commands load them, and the one place that knows where their compiled code is kept.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use larder::policy::{Policy, PolicyEngine};

use crate::console::Console;
use crate::exit::Failure;
use crate::input;

/// Where compiled policies are kept, so that each is compiled once on a machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CodeCache {
    /// Where compiled policies are kept [default: `$XDG_CACHE_HOME/larder/code`, or else `~/.cache/larder/code`]
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
    /// An engine that keeps compiled code, where there is a place for it.
    pub(crate) fn engine(&self) -> Result<PolicyEngine, Failure> {
        let builder = PolicyEngine::builder();
        Ok(match self.directory() {
            Some(directory) => builder.code_cache(directory),
            None => builder,
        }
        .build()?)
    }

    /// The directory; none for a user without a home.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let given = self.code_cache.clone().filter(|directory| !directory.as_os_str().is_empty());
        given.or_else(|| Some(caches(|name| env::var_os(name))?.join("code")))
    }
}

/// The program's directory for what it can make again (XDG Base Directory Specification, `XDG_CACHE_HOME`).
fn caches(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("larder"))
}

/// Loads the policy in a file.
pub(crate) fn load(engine: &PolicyEngine, path: &Path, console: &Console) -> Result<Policy, Failure> {
    let bytes = input::policy(path)?;
    let _step = console.step("loading the policy");
    Policy::load(engine, &bytes).map_err(|error| Failure::from(error).of_file("load", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made again is kept where the user says, or below the home; relative paths count as none.
    #[test]
    fn places() {
        let place = |cache: Option<&'static str>, home: Option<&'static str>| {
            caches(|name| if name == "HOME" { home } else { cache }.map(OsString::from))
        };
        assert_eq!(place(Some("/c"), Some("/h")), Some("/c/larder".into()));
        assert_eq!(place(None, Some("/h")), Some("/h/.cache/larder".into()));
        assert_eq!(place(Some("c"), Some("/h")), Some("/h/.cache/larder".into()));
        assert_eq!(place(Some(""), None), None);
    }
}
