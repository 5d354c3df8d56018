//! Docker's `config.json` and podman's `auth.json`: the same format, with other keys.
//!
//! A key is a registry, as people and programs write it: `docker.io`, `https://index.docker.io/v1/`, `r:5000/v2/`. In
//! podman's file it may go on with a part of a repository, and the longest key that fits counts. Empty texts and `null`
//! mean absent values.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use super::helper::Helper;
use super::secret::{Place, Secret};

/// The other names of Docker Hub.
const DOCKER_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// The name under which Docker's helpers know Docker Hub.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// A decoder for what programs wrote with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The program whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Docker,
    Podman,
}

/// The entry of a file for a repository.
#[derive(Debug)]
pub(crate) struct LookUp {
    /// The helper to ask first.
    pub(super) helper: Option<Helper>,
    /// The secret in the file itself, or why it cannot be used.
    pub(crate) entry: Result<Option<Secret>, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    // An entry that is odd matters only if it is the one for the registry.
    auths: Option<BTreeMap<String, Value>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Looks a repository up in the text of a file.
///
/// # Errors
/// A text, which has no part of the file, if the file is not valid or names a helper by an odd name.
pub(crate) fn look_up(text: &[u8], format: Format, place: &Place) -> Result<LookUp, String> {
    let config: Config = serde_json::from_slice(text).map_err(|error| {
        format!("it cannot be understood, at line {} and column {}", error.line(), error.column())
    })?;
    let auths = config.auths.unwrap_or_default();
    let mut entries: Vec<_> =
        auths.iter().filter_map(|(key, value)| Some((Key::of(key).rank(format, place)?, value))).collect();
    entries.sort_by_key(|(rank, _)| Reverse(*rank));
    let mut entry = Ok(None);
    for (_, value) in entries {
        match secret(value) {
            Ok(None) => {}
            found => {
                entry = found.map_err(|why| format!("its entry for `{}` {why}", place.registry));
                break;
            }
        }
    }
    let helpers = config.cred_helpers.unwrap_or_default();
    let own = helpers.iter().find(|(key, _)| Key::of(key).is_of(&place.registry));
    let name = own.and_then(|(_, name)| name.clone()).or(config.creds_store).filter(|name| !name.is_empty());
    let is_docker_hub = place.registry == "docker.io" && format == Format::Docker;
    let server = if is_docker_hub { DOCKER_HUB_SERVER } else { &place.registry };
    let helper = name.map(|name| Helper::new(&name, server)).transpose()?;
    Ok(LookUp { helper, entry })
}

/// A key of a file.
struct Key<'a> {
    host: &'a str,
    /// The part of a repository, or what else follows the host.
    path: &'a str,
    has_scheme: bool,
}

impl<'a> Key<'a> {
    fn of(text: &'a str) -> Self {
        let bare = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let (host, path) = bare.unwrap_or(text).split_once('/').unwrap_or((bare.unwrap_or(text), ""));
        let host = if DOCKER_HUB.contains(&host) { "docker.io" } else { host };
        Self { host, path: path.trim_matches('/'), has_scheme: bare.is_some() }
    }

    fn is_of(&self, registry: &str) -> bool {
        self.host.eq_ignore_ascii_case(registry)
    }

    /// Returns how well the key fits a repository, or `None` if it does not.
    fn rank(&self, format: Format, place: &Place) -> Option<(usize, bool)> {
        // The version of a registry's API, with whatever follows it.
        let is_version = matches!(self.path.split('/').next(), Some("v1" | "v2"));
        let is_part = format == Format::Podman && !self.has_scheme && !is_version;
        let rest = place.repository.strip_prefix(self.path).filter(|_| is_part && !self.path.is_empty());
        let length = match rest {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => self.path.len(),
            _ if is_part && !self.path.is_empty() => return None,
            _ => 0,
        };
        self.is_of(&place.registry).then_some((length, self.path.is_empty() && !self.has_scheme))
    }
}

/// Returns the secret of an entry.
fn secret(value: &Value) -> Result<Option<Secret>, &'static str> {
    let entry = Option::<Entry>::deserialize(value).map_err(|_| "has a value of another type")?;
    let Entry { auth, username, password, identitytoken, registrytoken } = entry.unwrap_or_default();
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = set(identitytoken) {
        return Ok(Some(Secret::Identity(token)));
    }
    if let Some(token) = set(registrytoken) {
        return Ok(Some(Secret::Bearer(token)));
    }
    if let Some(auth) = set(auth) {
        const ODD: &str = "is not a user and a password in Base64";
        let decoded = BASE64.decode(auth.trim()).map_err(|_| ODD)?;
        let decoded = String::from_utf8(decoded).map_err(|_| ODD)?;
        let (user, password) = decoded.split_once(':').ok_or(ODD)?;
        // Older versions of Docker ended it so.
        let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
        return Ok((!user.is_empty()).then_some(Secret::Password { user, password }));
    }
    Ok(set(username).zip(set(password)).map(|(user, password)| Secret::Password { user, password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, format: Format, registry: &str, repository: &str) -> LookUp {
        let place = Place { registry: registry.to_owned(), repository: repository.to_owned() };
        look_up(text.as_bytes(), format, &place).expect("a file")
    }

    fn docker(text: &str, registry: &str) -> Option<Secret> {
        found(text, Format::Docker, registry, "acme/app").entry.expect("an entry")
    }

    fn user(name: &str, password: &str) -> Option<Secret> {
        Some(Secret::Password { user: name.to_owned(), password: password.to_owned() })
    }

    /// Docker's configuration has users by registry, under whatever name the registry was logged in to.
    #[test]
    fn names_of_registries() {
        for key in [
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
            "https://index.docker.io/v1/",
            "https://index.docker.io/v1",
            "https://docker.io",
            "http://index.docker.io/v2/",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"aHViOnMzY3JldA=="}}}}}}"#);
            assert_eq!(docker(&text, "docker.io"), user("hub", "s3cret"), "{key}");
            assert_eq!(docker(&text, "r:5000"), None, "{key}");
        }
        for key in ["r:5000", "https://r:5000", "r:5000/", "r:5000/v2/", "http://r:5000/v2", "R:5000"] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"YWNtZTpwYXNzOndvcmQ"}}}}}}"#);
            assert_eq!(docker(&text, "r:5000"), user("acme", "pass:word"), "{key}");
            assert_eq!(docker(&text, "r"), None, "{key}");
        }
    }

    /// Empty texts and `null` are absent values, and an entry of nothing stands in the way of no other.
    #[test]
    fn absent_values() {
        for text in [
            "{}",
            r#"{"auths":null,"credsStore":null,"credHelpers":null}"#,
            r#"{"auths":{"r":null}}"#,
            r#"{"auths":{"r":{}},"credsStore":""}"#,
            r#"{"auths":{"r":{"auth":"","username":"u","password":""}}}"#,
            r#"{"auths":{"r":{"auth":null,"identitytoken":""}},"credHelpers":{"r":""}}"#,
            r#"{"auths":{"other":{"auth":"%"}},"unknown":[1]}"#,
        ] {
            let found = found(text, Format::Docker, "r", "a");
            assert!(found.helper.is_none() && found.entry == Ok(None), "{text}: {found:?}");
        }
        let pair = r#"{"auths":{"r":{"auth":"","username":"u","password":"p"}}}"#;
        assert_eq!(docker(pair, "r"), user("u", "p"));
        let both = r#"{"auths":{"r":{"auth":"YTpi","identitytoken":""},"https://r":{}}}"#;
        assert_eq!(docker(both, "r"), user("a", "b"));
        let second = r#"{"auths":{"docker.io":{},"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#;
        assert_eq!(docker(second, "docker.io"), user("a", "b"));
    }

    /// A token that is exchanged for others stands above user and password.
    #[test]
    fn tokens() {
        let text = r#"{"auths":{"r":{"auth":"MDAwOg==","identitytoken":"t"},"s":{"registrytoken":"b"}}}"#;
        assert_eq!(docker(text, "r"), Some(Secret::Identity("t".to_owned())));
        assert_eq!(docker(text, "s"), Some(Secret::Bearer("b".to_owned())));
    }

    /// In podman's file the longest key that is a part of the repository counts.
    #[test]
    fn parts_of_repositories() {
        let text = r#"{"auths":{
            "r": {"auth":"cjp4"}, "r/acme": {"auth":"YWNtZTp4"}, "r/acme/app": {"auth":"YXBwOng="}, "r/acme/ap": {"auth":"YXA6eA=="},
            "docker.io/acme": {"auth":"aHViOng="}, "https://s/acme": {"auth":"czp4"}, "t/acme": {"auth":"dDp4"}}}"#;
        let podman =
            |registry, repository| found(text, Format::Podman, registry, repository).entry.expect("an entry");
        assert_eq!(podman("r", "acme/app"), user("app", "x"));
        assert_eq!(podman("r", "acme/apps"), user("acme", "x"));
        assert_eq!(podman("r", "acme/app/part"), user("app", "x"));
        assert_eq!(podman("r", "other"), user("r", "x"));
        assert_eq!(
            (podman("docker.io", "acme/a"), podman("docker.io", "library/a")),
            (user("hub", "x"), None)
        );
        assert_eq!((podman("s", "other"), podman("t", "other")), (user("s", "x"), None));
        // Docker's has no such keys: what follows the host is nothing.
        assert_eq!(found(text, Format::Docker, "t", "other").entry, Ok(user("t", "x")));
    }

    /// The helper of the registry stands above that for all, and is asked by the name that it knows.
    #[test]
    fn helpers() {
        let text = r#"{"credsStore":"all","credHelpers":{"r:5000":"own","none":null}}"#;
        let helper = |format, registry| {
            let helper = found(text, format, registry, "a").helper.expect("a helper");
            (helper.program().to_owned(), helper.server().to_owned())
        };
        let expect = |program: &str, server: &str| (program.to_owned(), server.to_owned());
        assert_eq!(helper(Format::Docker, "r:5000"), expect("docker-credential-own", "r:5000"));
        assert_eq!(helper(Format::Docker, "none"), expect("docker-credential-all", "none"));
        let hub = expect("docker-credential-all", "https://index.docker.io/v1/");
        assert_eq!(helper(Format::Docker, "docker.io"), hub);
        assert_eq!(helper(Format::Podman, "docker.io"), expect("docker-credential-all", "docker.io"));
    }

    /// What cannot be used is said without anything of the file, and matters for its own registry alone.
    #[test]
    fn odd_files() {
        let place = Place { registry: "r".to_owned(), repository: "a".to_owned() };
        for odd in ["", "{", "[]", r#"{"auths":[]}"#, r#"{"credsStore":7}"#, r#"{"credsStore":"../secret"}"#]
        {
            let why = look_up(odd.as_bytes(), Format::Docker, &place).expect_err("odd");
            assert!(!why.contains("secret"), "{why}");
        }
        for odd in [
            r#"{"auth":"secret!"}"#,
            r#"{"auth":"YQ=="}"#,
            r#"{"auth":7}"#,
            r#""secret""#,
            r#"{"auth":"gICA"}"#,
        ] {
            let text = format!(r#"{{"auths":{{"r":{odd}}}}}"#);
            let why = found(&text, Format::Docker, "r", "a").entry.expect_err("odd");
            assert!(why.starts_with("its entry for `r` ") && !why.contains("secret"), "{why}");
            assert_eq!(docker(&text, "other"), None);
        }
    }
}
