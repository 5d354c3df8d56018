//! The ways in which a request can fail, and whether another try may help.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use crate::reference::Digest;

/// A problem of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The registry does not have it.
    Missing,
    /// The registry refuses access, with its reason.
    Refused(Option<String>),
    /// The registry could not be reached, or the connection broke.
    Unreachable(String),
    /// This machine has no certificates of authorities.
    NoAuthorities,
    /// The registry sent an invalid response, or an error.
    Failed(String),
    /// A document is larger than this number of bytes.
    TooLarge(u64),
    /// A manifest has another digest than was asked for.
    WrongDigest {
        /// The expected digest.
        expected: Digest,
        /// The digest of what was sent.
        found: Digest,
    },
    /// The registry refuses access, and the credentials for it cannot be used.
    Credentials {
        /// The file that has the credentials.
        path: PathBuf,
        /// The problem with them.
        why: String,
    },
    /// The caller ended the request.
    Cancelled,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) problem: Problem,
    pub(crate) remedy: Remedy,
}

/// The remedy for a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Try again later: after this time, if the registry names one.
    Again(Option<Duration>),
    /// Try again later if the registry has answered before: an address that never answered may not be a registry.
    AgainOnceReached,
    /// No remedy.
    None,
}

impl Fault {
    pub(crate) fn lasting(problem: Problem) -> Self {
        Self { problem, remedy: Remedy::None }
    }

    pub(crate) fn passing(problem: Problem) -> Self {
        Self { problem, remedy: Remedy::Again(None) }
    }

    /// Returns the fault as one of another host than the registry's.
    pub(super) fn at(self, host: &str) -> Self {
        let problem = match self.problem {
            Problem::Failed(why) => Problem::Failed(format!("`{host}`, which gives its tokens: {why}")),
            Problem::Unreachable(why) => {
                Problem::Unreachable(format!("`{host}`, which gives its tokens: {why}"))
            }
            Problem::Missing => Problem::Failed(format!("`{host}`, which gives its tokens, has none")),
            Problem::TooLarge(limit) => {
                Problem::Failed(format!("`{host}`, which gives its tokens, sent more than {limit} bytes"))
            }
            problem => problem,
        };
        Self { problem, remedy: self.remedy }
    }

    /// Returns the fault of a connection, without the URL, which may be signed.
    pub(super) fn of_connection(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let problem = Problem::Unreachable(in_words(chain(&error)));
        if error.is_builder() {
            Self::lasting(problem)
        } else if error.is_connect() {
            Self { problem, remedy: Remedy::AgainOnceReached }
        } else {
            Self::passing(problem)
        }
    }
}

/// Returns the first line of a stranger's text, with a bounded length and without control characters.
pub(super) fn first_line(text: &str) -> String {
    const SHOWN: usize = 200;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

/// Returns what an error of a connection means, if its text says that in terms of its library.
fn in_words(text: String) -> String {
    const KNOWN: [(&str, &str); 6] = [
        ("InvalidContentType", "it does not speak TLS"),
        ("UnknownIssuer", "its certificate is of an authority that this machine does not trust"),
        ("CaUsedAsEndEntity", "its certificate is that of an authority, and not that of a server"),
        ("dns error", "there is no such host"),
        ("Connection refused", "it refuses the connection"),
        ("end of file before message length reached", "the connection broke"),
    ];
    let known = KNOWN.into_iter().find(|(said, _)| text.contains(said));
    known.map_or(text, |(_, means)| means.to_owned())
}

/// Returns an error and its sources in one text, each source once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    first_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For any text of a registry, one line of bounded length is shown.
    #[test]
    fn what_a_registry_says_is_cut() {
        let long = format!("\n\n  {}\u{1b}[31m\nsecond", "x".repeat(1000));
        let line = first_line(&long);
        assert_eq!(line.len(), 200);
        assert!(line.chars().all(|character| character == 'x'));
    }
}
