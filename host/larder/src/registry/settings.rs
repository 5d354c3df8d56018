//! The registries in the settings of a home: `registries` in the `config.json` of microsandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::credentials::secret::{Secret, Trouble};
use super::network::{Authorities, Transport};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::config::read_if_any;

/// The registries in the settings of a home: which are reached without encryption, who logs in to them, and which
/// authorities are trusted beside those of this machine.
#[derive(Clone)]
pub struct HomeRegistries(Arc<Inner>);

struct Inner {
    /// The path of the settings.
    path: PathBuf,
    authorities: Authorities,
    hosts: BTreeMap<String, KnownHost>,
}

struct KnownHost {
    transport: Transport,
    secret: Result<Option<Secret>, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    registries: Option<Registries>,
    paths: Option<Paths>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Paths {
    secrets: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Registries {
    ca_certs: Option<PathBuf>,
    hosts: Option<BTreeMap<String, Option<Host>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Host {
    insecure: Option<bool>,
    auth: Option<Login>,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    store: Option<String>,
    password_env: Option<String>,
    secret_name: Option<String>,
}

impl HomeRegistries {
    /// Reads the settings of a home. `variable` returns the variables of the environment that they name.
    ///
    /// # Errors
    /// [`InvalidConfig`](MicrosandboxError::InvalidConfig) if the settings are not valid or name certificates that cannot
    /// be read. [`Io`](MicrosandboxError::Io) if the settings cannot be read. A login that cannot be used is an error only
    /// of a pull that needs it.
    pub fn read(home: &Path, variable: impl Fn(&str) -> Option<String>) -> MicrosandboxResult<Self> {
        let path = home.join("config.json");
        let text = read_if_any(&path).map_err(MicrosandboxError::io("read", &path))?;
        let text = text.unwrap_or_else(|| b"{}".to_vec());
        let invalid = |what: String| MicrosandboxError::InvalidConfig(format!("`{}` {what}", path.display()));
        let document: Document = serde_json::from_slice(&text).map_err(|error| {
            invalid(format!("cannot be understood, at line {}, column {}", error.line(), error.column()))
        })?;
        let Registries { ca_certs, hosts } = document.registries.unwrap_or_default();
        let secrets = document.paths.and_then(|paths| paths.secrets).unwrap_or_else(|| home.join("secrets"));
        let authorities = match ca_certs {
            Some(file) => {
                let pem = fs::read(&file).map_err(|error| {
                    invalid(format!("names `{}`, which cannot be read: {error}", file.display()))
                })?;
                Authorities::from_pem(&pem)
                    .map_err(|error| invalid(format!("names `{}`: {error}", file.display())))?
            }
            None => Authorities::default(),
        };
        let known = hosts.unwrap_or_default().into_iter().map(|(name, host)| {
            let Host { insecure, auth } = host.unwrap_or_default();
            let is_plain = insecure.unwrap_or_default();
            let transport = if is_plain { Transport::PlainHttp } else { Transport::Https };
            let secret = auth.map(|login| login.secret(&secrets, &variable)).transpose();
            (name, KnownHost { transport, secret })
        });
        let hosts = known.collect();
        Ok(Self(Arc::new(Inner { path, authorities, hosts })))
    }

    /// Returns the transport to a registry, such as `localhost:5000`.
    pub fn transport(&self, registry: &str) -> Transport {
        self.0.hosts.get(registry).map_or(Transport::Https, |host| host.transport)
    }

    /// Returns the authorities that are trusted beside those of this machine.
    pub fn authorities(&self) -> Authorities {
        self.0.authorities.clone()
    }

    /// Returns the path of the settings.
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the login for a registry.
    pub(super) fn secret(&self, registry: &str) -> Result<Option<Secret>, Trouble> {
        let Some(host) = self.0.hosts.get(registry) else { return Ok(None) };
        host.secret.clone().map_err(|why| Trouble {
            path: self.0.path.clone(),
            why: format!("its login for `{registry}` {why}"),
        })
    }
}

impl Login {
    fn secret(self, secrets: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Secret, String> {
        let Self { username: user, store, password_env, secret_name } = self;
        let password = match (store, password_env, secret_name) {
            (None, Some(name), None) => variable(&name)
                .ok_or_else(|| format!("has its password in the variable `{name}`, which is not set")),
            (None, None, Some(name)) => {
                let path = secrets.join("registries").join(name);
                fs::read_to_string(&path).map(|password| password.trim().to_owned()).map_err(|error| {
                    format!("has its password in `{}`, which cannot be read: {error}", path.display())
                })
            }
            (Some(_), None, None) => {
                Err("has its password in the keyring of the system, which is not read".to_owned())
            }
            _ => Err("says of no place, or of several, that they have its password".to_owned()),
        };
        Ok(Secret::Password { user, password: password? })
    }
}

/// Shows the path alone.
impl fmt::Debug for HomeRegistries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HomeRegistries").field(&self.0.path).finish()
    }
}

impl PartialEq for HomeRegistries {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for HomeRegistries {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a home name registries without encryption and logins with their passwords elsewhere. A login that
    /// cannot be used is trouble of its registry alone.
    #[test]
    fn settings_of_a_home() {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(home.path().join("secrets/registries")).expect("a directory");
        fs::write(home.path().join("secrets/registries/acme"), "from a file\n").expect("written");
        let text = r#"{"paths":{"cache":null},"registries":{"ca_certs":null,"hosts":{
            "localhost:5000":{"insecure":true}, "none":null,
            "file":{"auth":{"username":"u","secret_name":"acme"}},
            "variable":{"auth":{"username":"u","password_env":"ACME"}},
            "unset":{"auth":{"username":"u","password_env":"OTHER"}},
            "keyring":{"auth":{"username":"u","store":"keyring"}},
            "nowhere":{"auth":{"username":"u"}}}}}"#;
        fs::write(home.path().join("config.json"), text).expect("written");
        let variable = |name: &str| (name == "ACME").then(|| "from a variable".to_owned());
        let registries = HomeRegistries::read(home.path(), variable).expect("settings");
        assert_eq!(registries.transport("localhost:5000"), Transport::PlainHttp);
        assert_eq!(registries.transport("localhost"), Transport::Https);
        let user = |password: &str| Secret::Password { user: "u".to_owned(), password: password.to_owned() };
        assert_eq!(registries.secret("file"), Ok(Some(user("from a file"))));
        assert_eq!(registries.secret("variable"), Ok(Some(user("from a variable"))));
        assert_eq!((registries.secret("none"), registries.secret("other")), (Ok(None), Ok(None)));
        for (registry, said) in
            [("unset", "`OTHER`, which is not set"), ("keyring", "keyring"), ("nowhere", "no place")]
        {
            let why = registries.secret(registry).expect_err("trouble").why;
            assert!(why.contains(said) && why.contains(registry), "{why}");
        }
    }

    /// A home without settings has no registries. Settings that are not valid are an error, and so are certificates that are
    /// none.
    #[test]
    fn odd_settings() {
        let home = tempfile::tempdir().expect("a directory");
        let read = || HomeRegistries::read(home.path(), |_| None);
        assert_eq!(read().expect("none").transport("a"), Transport::Https);
        let file = home.path().join("ca.pem");
        for (text, said) in [
            ("{".to_owned(), "line 1"),
            (r#"{"registries":{"hosts":[]}}"#.to_owned(), "line 1"),
            (format!(r#"{{"registries":{{"ca_certs":"{}"}}}}"#, file.display()), "cannot be read"),
        ] {
            fs::write(home.path().join("config.json"), text).expect("written");
            let error = read().expect_err("odd").to_string();
            assert!(error.contains(said) && error.contains("config.json"), "{error}");
        }
        fs::write(&file, "no certificate").expect("written");
        assert!(read().expect_err("odd").to_string().contains("no certificate in PEM format"));
    }
}
