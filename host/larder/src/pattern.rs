//! Patterns over references: `*` within one path segment or tag, `**` across.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// A pattern over normalized references, such as `docker.io/acme/**` or `docker.io/acme/base:*`.
///
/// `*` matches any text within one path segment, tag or digest (it stops at `/`, `:` and `@`), `**` matches any
/// text, and every other character matches itself. The whole normalized reference has to match, its tag too:
/// `docker.io/acme/app` matches nothing, `docker.io/acme/app:*` every tag of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ReferencePattern {
    text: String,
    regex: Regex,
}

/// A text that is not a reference pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a reference pattern: at character {position}, {expected}")]
pub struct PatternError {
    text: String,
    /// Counted from 1, in characters.
    position: usize,
    expected: &'static str,
}

/// Longer than any reference (255 for the repository, 128 for the tag, the rest for a digest) by a good measure.
const MAX_CHARACTERS: usize = 1024;
/// More alternatives than anyone writes, and few enough that matching stays linear in practice.
const MAX_STARS: usize = 32;

impl ReferencePattern {
    /// Whether the whole normalized reference matches.
    pub fn matches(&self, reference: &Reference) -> bool {
        self.matches_text(reference.as_str())
    }

    /// As [`matches`](Self::matches), for a reference that does not parse and so has no normalized form.
    pub(crate) fn matches_text(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ReferencePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error =
            |position, expected| PatternError { text: text.chars().take(80).collect(), position, expected };
        if text.is_empty() {
            return Err(error(1, "expected a reference, in which `*` and `**` stand for any text"));
        }
        let mut regex = String::from("^(?s:");
        let mut stars = 0;
        let mut characters = text.chars().enumerate().peekable();
        while let Some((index, character)) = characters.next() {
            if index >= MAX_CHARACTERS {
                return Err(error(index + 1, "expected the end: a pattern has at most 1024 characters"));
            }
            match character {
                '*' => {
                    stars += 1;
                    let across = characters.next_if(|&(_, next)| next == '*').is_some();
                    if characters.peek().is_some_and(|&(_, next)| next == '*') {
                        return Err(error(index + 3, "expected something other than a third `*`"));
                    }
                    regex.push_str(if across { ".*" } else { "[^/:@]*" });
                }
                'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | ':' | '@' | '-' | '_' | '+' => {
                    regex.push(character)
                }
                '.' => regex.push_str("\\."),
                _ => return Err(error(index + 1, "expected a letter, a digit, or one of `/:@.-_+*`")),
            }
            if stars > MAX_STARS {
                return Err(error(index + 1, "expected at most 32 stars"));
            }
        }
        regex.push_str(")$");
        let regex = Regex::new(&regex).map_err(|_| error(1, "expected a simpler pattern"))?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

impl TryFrom<String> for ReferencePattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<ReferencePattern> for String {
    fn from(pattern: ReferencePattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for ReferencePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for ReferencePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ReferencePattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, reference: &str) -> bool {
        let pattern: ReferencePattern = pattern.parse().expect("a pattern");
        pattern.matches(&reference.parse().expect("a reference"))
    }

    /// A single star stays within a path segment or tag, a double star crosses them.
    #[test]
    fn stars() {
        let table = [
            ("**", "python", true),
            ("docker.io/library/python:*", "python:3.12", true),
            ("docker.io/*/python:*", "python:3.12", true),
            ("docker.io/*:*", "python:3.12", false),
            ("docker.io/acme/*", "docker.io/acme/app:1", false),
            ("docker.io/acme/**", "docker.io/acme/app:1", true),
            ("docker.io/acme/**", "docker.io/acmeother/app:1", false),
            ("docker.io/acme/app", "docker.io/acme/app:1", false),
            ("docker.io/acme/app:v*", "docker.io/acme/app:v1.2", true),
            ("docker.io/acme/app:v1.2", "docker.io/acme/app:v1x2", false),
            ("localhost:*/a/b:*", "localhost:5000/a/b:1", true),
            ("**:latest", "quay.io/a/b/c", true),
        ];
        for (pattern, reference, expected) in table {
            assert_eq!(matches(pattern, reference), expected, "{pattern} against {reference}");
        }
    }

    /// What is not a pattern is refused with the text, the place in it and what was expected.
    #[test]
    fn refusals_name_the_place() {
        let message = |text: &str| text.parse::<ReferencePattern>().expect_err("not a pattern").to_string();
        assert_eq!(
            message("docker.io/[ab]"),
            "`docker.io/[ab]` is not a reference pattern: at character 11, expected a letter, a digit, or one of `/:@.-_+*`"
        );
        assert!(message("a/***").contains("at character 5"));
        assert!(message("").contains("at character 1"));
        assert!(message(&"a".repeat(2000)).contains("at most 1024 characters"));
        assert!(message(&"*a".repeat(40)).contains("at most 32 stars"));
    }
}
