//! Secrets for a repository, and the reasons why there is none.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;

/// A repository, for which credentials are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The registry, such as `docker.io` or `localhost:5000`.
    pub(crate) registry: String,
    /// The repository in it, such as `library/python`.
    pub(crate) repository: String,
}

/// What a registry or its token service is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    None,
    Password {
        user: String,
        password: String,
    },
    /// A token that is exchanged for others.
    Identity(String),
    /// A token for the registry itself.
    Bearer(String),
}

impl Secret {
    /// Returns the texts that nobody may read.
    pub(crate) fn texts(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Password { user, password } => {
                vec![BASE64_STANDARD.encode(format!("{user}:{password}")), password.clone()]
            }
            Self::Identity(token) | Self::Bearer(token) => vec![token.clone()],
        }
    }

    /// Returns the header of a user and a password.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else { return None };
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Hides the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// Credentials that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The file that has them.
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}
