//! The environment's settings for registries: the credentials of `docker login`, and proxies.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use larder::ingest::Proxies;

/// Returns the path of the configuration that `docker login` writes, or `None` for a user without a home.
pub(crate) fn docker_config() -> Option<PathBuf> {
    docker_directory(|name| env::var_os(name)).map(|directory| directory.join("config.json"))
}

fn docker_directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))
}

/// Returns the proxies of the environment, in the variables that other programs use.
pub(crate) fn proxies() -> Proxies {
    proxies_of(|name| env::var(name).ok())
}

fn proxies_of(variable: impl Fn(&str) -> Option<String>) -> Proxies {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut proxies = Proxies::default();
    proxies.https = set("HTTPS_PROXY").or_else(|| set("https_proxy"));
    // In capitals it may be a header of a web server's client (`Proxy:`), so nobody reads it so.
    proxies.http = set("http_proxy");
    proxies.exceptions = set("NO_PROXY").or_else(|| set("no_proxy"));
    proxies
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker's configuration is where Docker looks for it.
    #[test]
    fn docker() {
        let place = |set: Option<&'static str>, home: Option<&'static str>| {
            docker_directory(|name| if name == "HOME" { home } else { set }.map(OsString::from))
        };
        assert_eq!(place(Some("/d"), Some("/h")), Some("/d".into()));
        assert_eq!(place(Some(""), Some("/h")), Some("/h/.docker".into()));
        assert_eq!(place(None, None), None);
    }

    /// The variables for proxies are read in capitals and in small letters, except that for plain HTTP.
    #[test]
    fn environment_of_proxies() {
        let of = |names: &'static [&'static str]| {
            proxies_of(move |name| names.contains(&name).then(|| format!("http://{name}")))
        };
        assert_eq!(of(&["HTTPS_PROXY", "https_proxy"]).https.as_deref(), Some("http://HTTPS_PROXY"));
        assert_eq!(of(&["https_proxy"]).https.as_deref(), Some("http://https_proxy"));
        assert_eq!((of(&["HTTP_PROXY"]).http, of(&["http_proxy"]).http.is_some()), (None, true));
        assert_eq!(of(&["no_proxy"]).exceptions.as_deref(), Some("http://no_proxy"));
    }
}
