//! Patterns over references: `*` within one path segment or tag, `**` across.
//!
//! A pattern is read against the normalized reference. It matches a reference if it matches the whole of it, or its
//! repository: `docker.io/acme/base` is every tag and digest of that repository, and `docker.io/acme/*` everything of
//! all repositories right below `docker.io/acme`.
//!
//! Matching is a walk over the text with the set of places in the pattern that are reached, one bit each. It takes as many
//! steps as the text has bytes, times one for each 64 characters of the pattern, whatever stars there are.
//!
//! A pattern that can match no normalized reference is refused (`possible.rs`): in a list of what is protected it would
//! protect nothing. `tests/fixtures/patterns.txt` has the cases that the guest SDK's matcher is held to as well.

mod meant;
mod nearby;
mod possible;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// A pattern over normalized references, such as `docker.io/acme/**` or `docker.io/acme/base:v*`.
///
/// `*` matches any text within one path segment, tag or digest (it stops at `/`, `:` and `@`), `**` matches any text, and
/// every other character matches itself. A pattern that matches a repository matches all of its references, those with a
/// digest too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ReferencePattern {
    text: String,
    /// What precedes the first star.
    prefix: usize,
    /// The characters but for stars.
    literals: Vec<u8>,
    /// The star before each of the literals, and that at the end.
    stars: Vec<Option<Star>>,
    steps: Steps,
}

/// A star of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Star {
    /// `*`.
    Within,
    /// `**`.
    Across,
}

/// The same literals and stars as sets of places, a bit for each, 64 to a word. A place is before the literal of its number, or at the
/// end.
#[derive(Debug, Clone)]
struct Steps {
    /// For each byte of ASCII, one set after the other, the places before a literal that is this byte.
    before: Vec<u64>,
    /// Places at a `**`.
    across: Vec<u64>,
    /// Places at any star.
    within: Vec<u64>,
    end: usize,
}

/// A text that is not a reference pattern, or a pattern that can match nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PatternError {
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("`{text}` is not a reference pattern: at character {position}, {expected}{}", Meant(.meant))]
    Syntax {
        text: String,
        /// Counted from 1, in characters.
        position: usize,
        expected: &'static str,
        /// Patterns that may have been meant, the likeliest first.
        meant: Vec<String>,
    },
    #[error(
        "`{text}` can match nothing: patterns are read against whole references such as \
         `docker.io/library/python:3.12`{}",
        Meant(.meant)
    )]
    Impossible {
        text: String,
        /// Patterns that may have been meant, the likeliest first.
        meant: Vec<String>,
    },
}

/// The patterns that may have been meant, as the end of a message.
struct Meant<'a>(&'a [String]);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; did you mean `{}`?", self.0.join("` or `"))
    }
}

/// Longer than any reference (255 for the repository, 128 for the tag, the rest for a digest) by a good measure.
const MAX_CHARACTERS: usize = 1024;
/// More than anyone writes.
const MAX_STARS: usize = 32;

impl ReferencePattern {
    /// Returns whether a reference or its repository matches.
    pub fn matches(&self, reference: &Reference) -> bool {
        self.matches_to(reference.as_str(), Some(reference.repository().len()))
    }

    /// As [`matches`](Self::matches), for a text of the index: one that is no reference has no normalized form and no
    /// repository, and is matched as it stands.
    pub(crate) fn matches_text(&self, text: &str, reference: Option<&Reference>) -> bool {
        reference.map_or_else(|| self.matches_to(text, None), |reference| self.matches(reference))
    }

    /// Returns whether everything matches, so that no name has to be read.
    pub(crate) fn is_everything(&self) -> bool {
        self.text == EVERYTHING
    }

    /// Returns whether a text matches, or what of it precedes `repository_end`.
    fn matches_to(&self, text: &str, repository_end: Option<usize>) -> bool {
        let text = text.as_bytes();
        let Some(rest) = text.strip_prefix(&self.literals[..self.prefix]) else { return false };
        if self.prefix == self.literals.len() && self.stars[self.prefix].is_none() {
            return rest.is_empty() || repository_end == Some(self.prefix);
        }
        let repository_end = repository_end.and_then(|end| end.checked_sub(self.prefix));
        self.steps.walk(self.prefix, rest, repository_end)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PatternError {
    /// What is wrong, without the text that it is wrong with.
    pub fn problem(&self) -> String {
        match &self.problem {
            Problem::Syntax { position, expected, meant, .. } => {
                format!("at character {position}, {expected}{}", Meant(meant))
            }
            Problem::Impossible { meant, .. } => format!("it can match nothing{}", Meant(meant)),
        }
    }
}

/// The pattern that everything matches.
const EVERYTHING: &str = "**";

impl Steps {
    fn new(literals: &[u8], stars: &[Option<Star>]) -> Self {
        let words = stars.len().div_ceil(64);
        let mut before = vec![0; 128 * words];
        for (place, &byte) in literals.iter().enumerate() {
            insert(&mut before[usize::from(byte) * words..], place);
        }
        let (mut across, mut within) = (vec![0; words], vec![0; words]);
        for (place, star) in stars.iter().enumerate().filter_map(|(place, star)| Some((place, (*star)?))) {
            insert(&mut within, place);
            if star == Star::Across {
                insert(&mut across, place);
            }
        }
        Self { before, across, within, end: literals.len() }
    }

    /// Returns the places before a literal that is this byte, which may be of any text.
    fn before(&self, byte: u8) -> Option<&[u64]> {
        let words = self.across.len();
        self.before.get(usize::from(byte) * words..)?.get(..words)
    }

    /// Returns whether the end is reached from `start` with all of the text, or with its first `stop` bytes.
    fn walk(&self, start: usize, text: &[u8], stop: Option<usize>) -> bool {
        // Most patterns have fewer than 64 characters: one word, and no allocation.
        if let ([across], [within]) = (&self.across[..], &self.within[..]) {
            let (across, within, end) = (*across, *within, 1_u64 << self.end);
            let mut reached = 1_u64 << start;
            for (index, &byte) in text.iter().enumerate() {
                if reached & end & across != 0 || stop == Some(index) && reached & end != 0 {
                    return true;
                }
                let before = self.before(byte).map_or(0, |set| set[0]);
                let stars = if is_separator(byte) { across } else { within };
                reached = (reached & before) << 1 | reached & stars;
                if reached == 0 {
                    return false;
                }
            }
            return reached & end != 0;
        }
        let mut reached = vec![0; self.across.len()];
        insert(&mut reached, start);
        for (index, &byte) in text.iter().enumerate() {
            if stop == Some(index) && contains(&reached, self.end) {
                return true;
            }
            let before = self.before(byte);
            let stars = if is_separator(byte) { &self.across } else { &self.within };
            let mut carry = 0;
            for (word, reached) in reached.iter_mut().enumerate() {
                let advanced = *reached & before.map_or(0, |set| set[word]);
                *reached = advanced << 1 | carry | *reached & stars[word];
                carry = advanced >> 63;
            }
        }
        contains(&reached, self.end)
    }
}

fn insert(set: &mut [u64], place: usize) {
    set[place / 64] |= 1 << (place % 64);
}

fn contains(set: &[u64], place: usize) -> bool {
    set[place / 64] >> (place % 64) & 1 == 1
}

/// Returns whether `*` stops at a byte.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b':' | b'@')
}

impl FromStr for ReferencePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_possible = |pattern: &Self| possible::can_match(&pattern.literals, &pattern.stars);
        let can_match = |candidate: &String| Self::read(candidate).is_ok_and(|pattern| is_possible(&pattern));
        let problem = match Self::read(text) {
            Ok(pattern) if is_possible(&pattern) => return Ok(pattern),
            Ok(_) => {
                Problem::Impossible { text: shown(text), meant: meant::likely_meanings(text, can_match) }
            }
            Err((position, expected)) => {
                let meant = meant::of_another_syntax(text, can_match);
                Problem::Syntax { text: shown(text), position, expected, meant }
            }
        };
        Err(PatternError { problem })
    }
}

impl ReferencePattern {
    /// Reads a pattern, which need not be able to match anything. Returns the place of an error, counted in characters
    /// from 1, and what was expected there.
    fn read(text: &str) -> Result<Self, (usize, &'static str)> {
        if text.is_empty() {
            return Err((1, "expected a reference, in which `*` and `**` stand for any text"));
        }
        let (mut literals, mut stars) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
        let mut star = None;
        let mut count = 0;
        let mut characters = text.chars().enumerate().peekable();
        while let Some((index, character)) = characters.next() {
            if index >= MAX_CHARACTERS {
                return Err((index + 1, "expected the end: a pattern has at most 1024 characters"));
            }
            match character {
                '*' => {
                    count += 1;
                    let across = characters.next_if(|&(_, next)| next == '*').is_some();
                    if characters.peek().is_some_and(|&(_, next)| next == '*') {
                        return Err((index + 3, "expected something other than a third `*`"));
                    }
                    star = Some(if across { Star::Across } else { Star::Within });
                }
                'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | ':' | '@' | '.' | '-' | '_' | '+' => {
                    literals.push(character as u8);
                    stars.push(star.take());
                }
                _ => return Err((index + 1, "expected a letter, a digit, or one of `/:@.-_+*`")),
            }
            if count > MAX_STARS {
                return Err((index + 1, "expected at most 32 stars"));
            }
        }
        stars.push(star);
        let prefix = stars.iter().position(Option::is_some).unwrap_or(literals.len());
        let steps = Steps::new(&literals, &stars);
        Ok(Self { text: text.to_owned(), prefix, literals, stars, steps })
    }
}

/// A text as far as a message shows it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
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
mod tests;
