//! The environment's settings for registries: the credentials of other programs, and proxies.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use larder::ingest::{Credentials, HomeRegistries, Proxies};

/// Returns the credentials that other programs keep: microsandbox for this home, then Docker, then podman.
pub(crate) fn kept_credentials(home: HomeRegistries) -> Credentials {
    let docker = docker_config(|name| env::var_os(name)).map(Credentials::Docker);
    let podman = podman_files(|name| env::var_os(name)).into_iter().map(Credentials::Podman);
    Credentials::FirstOf([Credentials::Home(home)].into_iter().chain(docker).chain(podman).collect())
}

/// Returns the path of the configuration that `docker login` writes, or `None` for a user without a home.
fn docker_config(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| set(&variable, name);
    let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Returns the paths of the files that `podman login` and `skopeo login` write (containers-auth.json(5)).
fn podman_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name| set(&variable, name);
    if let Some(file) = set("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let of_the = |directory: PathBuf| directory.join("containers/auth.json");
    // Without a session, as for a job of the system, podman has a directory of its own for each user.
    let of_the_system = format!("/run/containers/{}/auth.json", rustix::process::geteuid().as_raw());
    let files = [set("XDG_RUNTIME_DIR").map(of_the), Some(of_the_system.into()), config.map(of_the)];
    files.into_iter().flatten().collect()
}

/// Returns a variable as a path. One that is empty is not set.
fn set(variable: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the proxies of the environment, in the variables that other programs use.
pub(crate) fn proxies() -> Proxies {
    proxies_of(|name| env::var(name).ok())
}

fn proxies_of(variable: impl Fn(&str) -> Option<String>) -> Proxies {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut proxies = Proxies::default();
    proxies.https = set("HTTPS_PROXY").or_else(|| set("https_proxy"));
    // In a program that a web server starts, it may be a header of the server's client (`Proxy:`).
    let is_ours = set("REQUEST_METHOD").is_none();
    proxies.http = set("HTTP_PROXY").filter(|_| is_ours).or_else(|| set("http_proxy"));
    proxies.exceptions = set("NO_PROXY").or_else(|| set("no_proxy"));
    proxies
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker's configuration is where Docker looks for it, and podman's files are where podman does.
    #[test]
    fn places() {
        let of = |set: &'static [(&'static str, &'static str)]| {
            let variable = move |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            let podman: Vec<String> =
                podman_files(variable).iter().map(|path| path.display().to_string()).collect();
            // Who runs the test has one of the system.
            let podman: Vec<String> =
                podman.into_iter().filter(|path| !path.starts_with("/run/containers/")).collect();
            (docker_config(variable), podman)
        };
        assert_eq!(of(&[("DOCKER_CONFIG", "/d"), ("HOME", "/h")]).0, Some("/d/config.json".into()));
        assert_eq!(of(&[("DOCKER_CONFIG", ""), ("HOME", "/h")]).0, Some("/h/.docker/config.json".into()));
        assert_eq!(of(&[]), (None, vec![]));
        let podman = of(&[("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")]).1;
        assert_eq!(podman, ["/r/containers/auth.json", "/h/.config/containers/auth.json"]);
        assert_eq!(of(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]).1, ["/c/containers/auth.json"]);
        assert_eq!(of(&[("REGISTRY_AUTH_FILE", "/f"), ("HOME", "/h")]).1, ["/f"]);
    }

    /// The variables for proxies are read in capitals and in small letters. In a program of a web server, that for plain
    /// HTTP counts in small letters alone.
    #[test]
    fn environment_of_proxies() {
        let of = |names: &'static [&'static str]| {
            proxies_of(move |name| names.contains(&name).then(|| format!("http://{name}")))
        };
        assert_eq!(of(&["HTTPS_PROXY", "https_proxy"]).https.as_deref(), Some("http://HTTPS_PROXY"));
        assert_eq!(of(&["https_proxy"]).https.as_deref(), Some("http://https_proxy"));
        assert_eq!(of(&["HTTP_PROXY", "http_proxy"]).http.as_deref(), Some("http://HTTP_PROXY"));
        assert_eq!(of(&["http_proxy"]).http.as_deref(), Some("http://http_proxy"));
        let served = of(&["REQUEST_METHOD", "HTTP_PROXY", "http_proxy"]).http;
        assert_eq!(served.as_deref(), Some("http://http_proxy"));
        let all = of(&["ALL_PROXY", "all_proxy"]);
        assert_eq!((all.https, all.http), (None, None));
        assert_eq!(of(&["no_proxy"]).exceptions.as_deref(), Some("http://no_proxy"));
    }
}
