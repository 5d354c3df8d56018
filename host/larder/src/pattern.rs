//! Patterns over references: `*` within one path segment or tag, `**` across.

use std::fmt;
use std::str::FromStr;

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
    pieces: Vec<Piece>,
}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// `*`.
    Within,
    /// `**`.
    Across,
}

impl Piece {
    /// Tells whether a star of this kind takes a byte.
    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => own == byte,
            Self::Within => !matches!(byte, b'/' | b':' | b'@'),
            Self::Across => true,
        }
    }
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
/// More than anyone writes.
const MAX_STARS: usize = 32;

impl ReferencePattern {
    /// Whether the whole normalized reference matches.
    pub fn matches(&self, reference: &Reference) -> bool {
        self.matches_text(reference.as_str())
    }

    /// As [`matches`](Self::matches), for a reference that does not parse and so has no normalized form.
    pub(crate) fn matches_text(&self, text: &str) -> bool {
        let (pieces, text) = (&self.pieces, text.as_bytes());
        let (mut piece, mut at) = (0, 0);
        // The last star of each kind, and where what follows it begins. A star before the last of its kind need not be tried
        // again: what it could take beyond, the later one takes.
        let (mut within, mut across) = (None, None);
        loop {
            match (pieces.get(piece), text.get(at)) {
                (Some(Piece::Across), _) => {
                    piece += 1;
                    (within, across) = (None, Some((piece, at)));
                    continue;
                }
                (Some(Piece::Within), _) => {
                    piece += 1;
                    within = Some((piece, at));
                    continue;
                }
                (Some(Piece::Byte(own)), Some(byte)) if own == byte => {
                    (piece, at) = (piece + 1, at + 1);
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let longer = |(next, begin): (usize, usize), star: Piece| {
                text.get(begin).filter(|&&byte| star.takes(byte)).map(|_| (next, begin + 1))
            };
            within = within.and_then(|star| longer(star, Piece::Within));
            if within.is_none() {
                across = across.and_then(|star| longer(star, Piece::Across));
            }
            match within.or(across) {
                Some(next) => (piece, at) = next,
                None => return false,
            }
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PatternError {
    /// What is wrong, without the text that it is wrong with.
    pub fn problem(&self) -> String {
        format!("at character {}, {}", self.position, self.expected)
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
        let mut pieces = Vec::with_capacity(text.len());
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
                    pieces.push(if across { Piece::Across } else { Piece::Within });
                }
                'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | ':' | '@' | '.' | '-' | '_' | '+' => {
                    pieces.push(Piece::Byte(character as u8));
                }
                _ => return Err(error(index + 1, "expected a letter, a digit, or one of `/:@.-_+*`")),
            }
            if stars > MAX_STARS {
                return Err(error(index + 1, "expected at most 32 stars"));
            }
        }
        Ok(Self { text: text.to_owned(), pieces })
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
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    proptest! {
        /// A pattern matches what the regular expression matches that it stands for.
        #[test]
        fn as_a_regular_expression(
            pieces in prop::collection::vec(prop::sample::select(vec!["a", "b", "/", ":", "@", ".", "+", "*", "**"]), 1..10),
            text in "[ab/:@.+]{0,12}",
        ) {
            let mut pattern = String::new();
            let mut expression = String::new();
            for piece in pieces {
                // Three stars in a row are no pattern.
                if piece.starts_with('*') && pattern.ends_with('*') {
                    continue;
                }
                pattern += piece;
                expression += &match piece {
                    "*" => "[^/:@]*".to_owned(),
                    "**" => ".*".to_owned(),
                    other => regex::escape(other),
                };
            }
            let expected = Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&text);
            let pattern: ReferencePattern = pattern.parse().unwrap();
            prop_assert_eq!(pattern.matches_text(&text), expected, "{} against {}", pattern, text);
        }
    }

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
            ("docker.io/acme+/app:*", "docker.io/acmeee/app:1", false),
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
