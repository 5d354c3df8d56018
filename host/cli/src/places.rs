//! The places of files: the job file, and the directories for what the program can make again (XDG Base Directory
//! Specification, `XDG_CACHE_HOME`).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use larder::LocalBackend;

/// Returns the path of the job file: the given one, or `$LARDER_FILE`, or that of the home.
pub(crate) fn job_file(given: Option<&Path>, local: &LocalBackend) -> PathBuf {
    let set = || env::var_os("LARDER_FILE").map(PathBuf::from);
    let given = given.map(Path::to_owned).or_else(set).filter(|path| !path.as_os_str().is_empty());
    given.unwrap_or_else(|| local.home().join("larder.toml"))
}

/// Returns the directory for compiled policies, or `None` for a user without a home.
pub(crate) fn code() -> Option<PathBuf> {
    Some(caches(|name| env::var_os(name))?.join("code"))
}

/// Returns the directory for the compilers and packages that build policies, or `None` for a user without a home.
#[cfg(feature = "kit")]
pub(crate) fn tools() -> Option<PathBuf> {
    Some(caches(|name| env::var_os(name))?.join("tools"))
}

fn caches(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("larder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that can be made again are in the directory that the user names, or below the home. Relative paths
    /// are ignored.
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
