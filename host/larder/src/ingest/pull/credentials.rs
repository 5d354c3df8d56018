//! The credentials for a registry.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;

use crate::ingest::error::IngestProblem;

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
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Docker(path) => f.debug_tuple("Docker").field(path).finish(),
        }
    }
}

/// The key of Docker Hub in Docker's configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

impl Credentials {
    /// Returns the authentication for a registry. May run a program.
    pub(super) fn resolve(self, registry: &str) -> Result<RegistryAuth, IngestProblem> {
        match self {
            Self::Anonymous => Ok(RegistryAuth::Anonymous),
            Self::Password { user, password } => Ok(RegistryAuth::Basic(user, password)),
            Self::Docker(path) => of_docker(&path, registry),
        }
    }
}

fn of_docker(path: &Path, registry: &str) -> Result<RegistryAuth, IngestProblem> {
    let fail = |why: String| IngestProblem::Credentials { path: path.to_owned(), why };
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(error) => return Err(fail(error.to_string())),
    };
    let server = if registry == "docker.io" { DOCKER_HUB } else { registry };
    match get_credential_from_reader(file, server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => Err(fail(format!(
            "it has an identity token for `{registry}`, which is not supported: give a user and a password"
        ))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        // What the helpers of Docker say when they know nobody.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            let said = said.lines().next().unwrap_or_default().trim().to_owned();
            Err(fail(format!("`{helper}`, which it names, failed: {said}")))
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn resolve(config: &str, registry: &str) -> Result<RegistryAuth, IngestProblem> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        fs::write(&path, config).expect("written");
        Credentials::Docker(path).resolve(registry)
    }

    /// Docker's configuration has users by registry, and those of Docker Hub under its old address.
    #[test]
    fn docker_knows_users_by_registry() {
        let config = r#"{ "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnMzY3JldA==" },
            "localhost:5000": { "auth": "YWNtZTpwYXNzOndvcmQ=" } } }"#;
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.to_owned(), password.to_owned());
        assert_eq!(resolve(config, "docker.io").expect("a user"), basic("hub", "s3cret"));
        assert_eq!(resolve(config, "localhost:5000").expect("a user"), basic("acme", "pass:word"));
        assert_eq!(resolve(config, "other.example").expect("nobody"), RegistryAuth::Anonymous);
    }

    /// Without a configuration the access is anonymous. A configuration that cannot be read is an error that names it.
    #[test]
    fn a_configuration_may_be_missing_but_not_broken() {
        let missing = Credentials::Docker("/nonexistent/config.json".into());
        assert_eq!(missing.resolve("docker.io").expect("nobody"), RegistryAuth::Anonymous);
        let broken = resolve("{", "docker.io").expect_err("no configuration").to_string();
        assert!(broken.contains("config.json") && broken.contains("Unable to read"), "{broken}");
        let token = r#"{ "auths": { "acme.example": { "auth": "YTpi", "identitytoken": "t" } } }"#;
        let token = resolve(token, "acme.example").expect_err("a token").to_string();
        assert!(token.contains("identity token for `acme.example`"), "{token}");
    }

    /// A missing helper is an error, because the configuration asks for it.
    #[test]
    fn helpers_are_asked() {
        let config = r#"{ "credHelpers": { "acme.example": "larder-test-missing" } }"#;
        let error = resolve(config, "acme.example").expect_err("no helper").to_string();
        assert!(error.contains("credential helper"), "{error}");
    }

    /// Printing the settings does not show passwords.
    #[test]
    fn passwords_stay_hidden() {
        let credentials = Credentials::Password { user: "acme".to_owned(), password: "hunter2".to_owned() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("acme") && !shown.contains("hunter2"), "{shown}");
    }

    /// A configuration that another user owns is not treated as missing.
    #[test]
    fn an_unreadable_configuration_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        fs::create_dir(&path).expect("a directory in its place");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("permissions");
        let error = Credentials::Docker(path).resolve("docker.io").expect_err("a directory").to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
