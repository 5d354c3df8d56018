//! The identity of a home.
//!
//! The first change of a home makes its id once, and the id stays with the index. A copy of a home has the same id,
//! and a home that is created again has a new one. A home that Larder has never changed has no id, and is identified
//! by its path alone.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of a home: 128 random bits as 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HomeId(String);

/// The error for text that is not the id of a home.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a home: expected 32 hex digits in lower case")]
pub struct HomeIdError(String);

impl HomeId {
    /// Returns the 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HomeId {
    type Err = HomeIdError;

    fn from_str(text: &str) -> Result<Self, HomeIdError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 32 && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(HomeIdError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for HomeId {
    type Error = HomeIdError;

    fn try_from(text: String) -> Result<Self, HomeIdError> {
        text.parse()
    }
}

impl From<HomeId> for String {
    fn from(id: HomeId) -> Self {
        id.0
    }
}

impl fmt::Display for HomeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a home, as plans and caches state it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeIdentity {
    /// The id. Absent for a home that Larder has never changed.
    pub id: Option<HomeId>,
    /// The directory, without symbolic links. Bytes that are not Unicode are replaced.
    pub path: String,
}

impl HomeIdentity {
    pub(crate) fn new(id: Option<HomeId>, home: &Path) -> Self {
        let path = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        Self { id, path: path.to_string_lossy().into_owned() }
    }

    /// Returns whether this identity means `home`: the home with the same id at any path, or, without an id, the home
    /// at the same path.
    pub fn names(&self, home: &Self) -> bool {
        match &self.id {
            Some(id) => home.id.as_ref() == Some(id),
            None => self.path == home.path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with an id is recognized at any path. A home without an id is recognized by its path.
    #[test]
    fn homes_are_told_apart() {
        let home = |id: Option<&str>, path: &str| HomeIdentity {
            id: id.map(|digit| digit.repeat(32).parse().expect("an id")),
            path: path.to_owned(),
        };
        let table = [
            (home(Some("a"), "/1"), home(Some("a"), "/2"), true),
            (home(Some("a"), "/1"), home(Some("b"), "/1"), false),
            (home(Some("a"), "/1"), home(None, "/1"), false),
            (home(None, "/1"), home(Some("a"), "/1"), true),
            (home(None, "/1"), home(None, "/2"), false),
        ];
        for (named, other, same) in table {
            assert_eq!(named.names(&other), same, "{named:?} {other:?}");
        }
        for bad in ["", "a", &"A".repeat(32), &"g".repeat(32), &"a".repeat(33)] {
            assert!(bad.parse::<HomeId>().is_err(), "{bad}");
        }
    }
}
