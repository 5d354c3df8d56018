//! The guard of a home, `larder.toml`: what stays, whoever decides.
//!
//! It is read when something is decided and again when that is done, and never kept: the operator may change it at any
//! time. A file that cannot be understood stops what it may have been meant to stop; reading a home goes on without it.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{HomePaths, HomeProblem, config};
use crate::error::slip::{Keys, Slip};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::Guard;

/// The whole file.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Document {
    guard: Guard,
    /// Of the jobs, which are read by themselves: what is wrong with one does not unmake the guard.
    #[serde(rename = "defaults")]
    _defaults: IgnoredAny,
    #[serde(rename = "jobs")]
    _jobs: IgnoredAny,
}

const KEYS: Keys = Keys {
    what: "`larder.toml`",
    tables: &[("", &["guard", "defaults", "jobs"]), ("guard", &["protect", "min-age", "keep"])],
};

/// Reads the guard of a home; one without the file has none.
///
/// # Errors
/// [`MicrosandboxError::InvalidConfig`] with line and key for a file that cannot be understood: nothing is guessed about
/// what is to stay. [`MicrosandboxError::Home`] with its path where it cannot be read.
pub(crate) fn read(paths: &HomePaths) -> MicrosandboxResult<Guard> {
    let bytes = config::read_if_any(&paths.settings)
        .map_err(|error| paths.problem(HomeProblem::Unreadable(error)))?;
    let Some(bytes) = bytes else { return Ok(Guard::default()) };
    parse(&bytes).map_err(|slip| {
        MicrosandboxError::InvalidConfig(format!(
            "`{}`{slip}; until that is mended, neither a prune nor a policy removes anything",
            paths.settings.display()
        ))
    })
}

fn parse(bytes: &[u8]) -> Result<Guard, Slip> {
    let text = std::str::from_utf8(bytes).map_err(|error| Slip {
        line: Some(1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count()),
        key: String::new(),
        problem: "it is not UTF-8".to_owned(),
        suggestion: None,
    })?;
    let document: Document =
        toml::from_str(text).map_err(|error| Slip::find(text, &KEYS, error.message(), error.span()))?;
    Ok(document.guard)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A guard is read with every key; what is not understood is refused with line, key and suggestion.
    #[test]
    fn files() {
        let text = "[guard]\nprotect = [\"docker.io/acme/base\"]\nmin-age = \"1h\"\nkeep = 1\n";
        let guard = parse(text.as_bytes()).expect("a guard");
        let protect = vec!["docker.io/acme/base".parse().expect("a pattern")];
        assert_eq!(guard, Guard { protect, min_age: Some(Duration::from_secs(3600)), keep: 1 });
        assert_eq!(parse(b"").expect("a guard"), Guard::default());
        let table = [
            ("[guard]\nprotct = []", ", line 2: `protct`: no such key in `[guard]`; did you mean `protect`?"),
            (
                "[gard]\n",
                ", line 1: `gard`: no such table in `larder.toml`; there is `[guard]`; did you mean `guard`?",
            ),
            (
                "keep = 1",
                ", line 1: `keep`: no such table in `larder.toml`; there is `[guard]`; did you mean `keep` in `[guard]`?",
            ),
            (
                "[guard]\nprotect = [\"acme/base\"]",
                ", line 2: `protect`: `acme/base` can match nothing: patterns are read against whole references such as \
                 `docker.io/library/python:3.12`; did you mean `docker.io/acme/base`?",
            ),
            (
                "[guard]\nmin-age = 5",
                ", line 2: `min-age`: the number `5` is not a duration such as `500ms`, `5s`, `1h30m` or `7d`",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), expected, "{text}");
        }
        assert_eq!(parse(b"[guard]\n\xff").expect_err("no text").to_string(), ", line 2: it is not UTF-8");
    }
}
