//! The directories for files that the program can make again (XDG Base Directory Specification,
//! `XDG_CACHE_HOME`).

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

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
