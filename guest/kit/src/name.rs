//! What a policy is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::KitError;

/// The name of a policy: lower-case letters, digits and `-`, beginning with a letter, at most 64 characters.
///
/// So it can stand in a file name, a TOML string and a literal of any language as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyName(String);

/// The longest name.
const MAX_LENGTH: usize = 64;

impl PolicyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PolicyName {
    type Err = KitError;

    /// # Errors
    /// [`KitError::InvalidName`].
    fn from_str(text: &str) -> Result<Self, KitError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if begins && text.len() <= MAX_LENGTH && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KitError::InvalidName { text: text.chars().take(MAX_LENGTH).collect() })
        }
    }
}

impl<'de> Deserialize<'de> for PolicyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name is what can stand in a file name and in a literal, and nothing else is one.
    #[test]
    fn names() {
        let longest = "a".repeat(MAX_LENGTH);
        for name in ["a", "keep-recent", "v2", "a-", longest.as_str()] {
            assert_eq!(name.parse::<PolicyName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(MAX_LENGTH + 1);
        for text in
            ["", "-a", "2a", "A", "a_b", "a.b", "a/b", "..", "a b", "é", "a\n", "\"", too_long.as_str()]
        {
            let message = text.parse::<PolicyName>().unwrap_err().to_string();
            assert!(message.contains("is not a name for a policy: expected lower-case letters"), "{message}");
        }
    }
}
