//! The credentials for a registry: none, a user, or those that other programs keep.
//!
//! ```text
//! file    Docker's `config.json` and podman's `auth.json`
//! helper  programs that keep credentials for Docker and podman
//! secret  what a registry is shown, and for which repository
//! ```
//!
//! Nothing is looked for before a registry asks. What cannot be used then, such as a helper that is not installed, is
//! passed over with a warning, since most images are public; only if the registry refuses access, it is the error.

pub(crate) mod file;
mod helper;
pub(crate) mod secret;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::file::{Format, LookUp};
use self::secret::{Place, Secret, Trouble};
use super::settings::HomeRegistries;
use crate::home::config::read_if_any;

/// The time after which a helper is ended.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// The credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials.
    #[default]
    Anonymous,
    /// A user of the registry.
    Password {
        /// The user's name.
        user: String,
        /// The password, or an access token in its place.
        password: String,
    },
    /// The user in Docker's configuration for the registry. The path is that of a `config.json`. Credential helpers
    /// that it names are run. If there is no such file, or it has no entry for the registry, the access is anonymous.
    Docker(PathBuf),
    /// The user in podman's `auth.json` for the registry or for a part of it, likewise.
    Podman(PathBuf),
    /// The user in the settings of a home for the registry.
    Home(HomeRegistries),
    /// The first of these that has credentials for the registry.
    FirstOf(Vec<Self>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Docker(path) => f.debug_tuple("Docker").field(path).finish(),
            Self::Podman(path) => f.debug_tuple("Podman").field(path).finish(),
            Self::Home(registries) => f.debug_tuple("Home").field(registries).finish(),
            Self::FirstOf(all) => f.debug_tuple("FirstOf").field(all).finish(),
        }
    }
}

/// The result of looking for credentials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) secret: Secret,
    /// The first trouble on the way.
    pub(crate) trouble: Option<Trouble>,
}

impl Credentials {
    /// Looks for the credentials for a repository. May run a program, which ends when the future is dropped.
    pub(crate) async fn find(&self, place: &Place) -> Found {
        let registry = &place.registry;
        let mut first = None;
        for source in self.sources() {
            match source.look_up(place).await {
                Ok(Some((secret, origin))) => {
                    tracing::info!("the credentials for `{registry}` are {origin}");
                    return Found { secret, trouble: first };
                }
                Ok(None) => {}
                Err(trouble) => {
                    let Trouble { path, why } = &trouble;
                    tracing::warn!("the credentials in `{}` cannot be used: {why}", path.display());
                    first.get_or_insert(trouble);
                }
            }
        }
        tracing::info!("there are no credentials for `{registry}`");
        Found { secret: Secret::None, trouble: first }
    }

    /// Returns all sources in their order.
    fn sources(&self) -> Vec<&Self> {
        match self {
            Self::FirstOf(all) => all.iter().flat_map(Self::sources).collect(),
            single => vec![single],
        }
    }

    /// Returns the secret of one source for a repository, and where it is from.
    async fn look_up(&self, place: &Place) -> Result<Option<(Secret, String)>, Trouble> {
        match self {
            Self::Anonymous | Self::FirstOf(_) => Ok(None),
            Self::Password { user, password } => {
                let secret = Secret::Password { user: user.clone(), password: password.clone() };
                Ok(Some((secret, "those that were given".to_owned())))
            }
            Self::Docker(path) => in_file(path, Format::Docker, place).await,
            Self::Podman(path) => in_file(path, Format::Podman, place).await,
            Self::Home(registries) => {
                let secret = registries.secret(&place.registry)?;
                let origin = || format!("those of `{}`", registries.path().display());
                Ok(secret.map(|secret| (secret, origin())))
            }
        }
    }
}

async fn in_file(path: &Path, format: Format, place: &Place) -> Result<Option<(Secret, String)>, Trouble> {
    let fail = |why: String| Trouble { path: path.to_owned(), why };
    let Some(text) = read_if_any(path).map_err(|error| fail(error.to_string()))? else { return Ok(None) };
    let LookUp { helper, entry } = file::look_up(&text, format, place).map_err(fail)?;
    let mut trouble = None;
    if let Some(helper) = helper {
        match helper.run(HELPER_TIME).await {
            Ok(Some(secret)) => {
                let origin = format!("those that `{}` has", helper.program());
                return Ok(Some((secret, format!("{origin}, which `{}` names", path.display()))));
            }
            Ok(None) => {}
            Err(why) => trouble = Some(fail(why)),
        }
    }
    match entry {
        Ok(Some(secret)) => Ok(Some((secret, format!("those of `{}`", path.display())))),
        Ok(None) => trouble.map_or(Ok(None), Err),
        Err(why) => Err(trouble.unwrap_or_else(|| fail(why))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn find(credentials: Credentials, registry: &str) -> Found {
        let place = Place { registry: registry.to_owned(), repository: "acme/app".to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(credentials.find(&place))
    }

    fn acme() -> Secret {
        Secret::Password { user: "acme".to_owned(), password: "secret".to_owned() }
    }

    /// The first source that has credentials for the registry counts. What cannot be used before it is remembered, and does
    /// not stop the search.
    #[test]
    fn the_first_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let missing = Credentials::Docker(directory.path().join("missing.json"));
        let broken = path("broken.json", "{");
        let good = path("good.json", r#"{"auths":{"r":{"auth":"YWNtZTpzZWNyZXQ="}}}"#);
        let all = Credentials::FirstOf(vec![
            missing,
            Credentials::Docker(broken.clone()),
            Credentials::FirstOf(vec![Credentials::Podman(good.clone())]),
            Credentials::Password { user: "other".to_owned(), password: "x".to_owned() },
        ]);
        let found = find(all, "r");
        assert_eq!(found.secret, acme());
        assert_eq!(found.trouble.map(|trouble| trouble.path), Some(broken.clone()));
        assert_eq!(find(Credentials::Docker(good), "other"), Found { secret: Secret::None, trouble: None });
        let found = find(Credentials::Docker(broken.clone()), "r");
        assert_eq!((found.secret, found.trouble.map(|trouble| trouble.path)), (Secret::None, Some(broken)));
        // A directory in its place.
        let odd = find(Credentials::Docker(directory.path().to_owned()), "r");
        assert!(odd.trouble.is_some_and(|trouble| trouble.why.contains("not a regular file")));
    }

    /// A helper that is not installed is trouble, unless the file itself has an entry.
    #[test]
    fn a_missing_helper() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        for (auths, secret) in
            [("{}", Secret::None), (r#"{"r":{"username":"acme","password":"secret"}}"#, acme())]
        {
            let text = format!(r#"{{"credsStore":"larder-test-missing","auths":{auths}}}"#);
            fs::write(&path, text).expect("written");
            let found = find(Credentials::Docker(path.clone()), "r");
            let trouble = found.trouble.map(|trouble| trouble.why);
            let expected =
                "`docker-credential-larder-test-missing`, which it names, is not installed".to_owned();
            assert_eq!(
                (found.secret == Secret::None, trouble),
                (secret == Secret::None, (secret == Secret::None).then_some(expected))
            );
            assert_eq!(found.secret, secret);
        }
    }

    /// Printing credentials shows no secret.
    #[test]
    fn passwords_stay_hidden() {
        let credentials = Credentials::Password { user: "acme".to_owned(), password: "hunter2".to_owned() };
        let shown = format!("{credentials:?} {:?} {:?}", acme(), acme().basic());
        assert!(shown.contains("acme") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("YWNt"), "{shown}");
    }
}
