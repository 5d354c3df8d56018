//! Reference patterns: `*` within one path segment or tag, `**` across segments.

mod possible;

use super::reference::normalize;

/// A pattern that can match some reference.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// The characters but for stars.
    literals: Vec<u8>,
    /// The star before each of the literals, and that at the end.
    stars: Vec<Option<Star>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Star {
    /// `*`.
    Within,
    /// `**`.
    Across,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The problem of a text that is no pattern, or of one that can match nothing: the host refuses both.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let is_literal = |c: char| c.is_ascii_alphanumeric() || "/:@.-_+".contains(c);
        if text.is_empty() || text.contains("***") || !text.chars().all(|c| c == '*' || is_literal(c)) {
            return Err("not a reference pattern");
        }
        let (mut literals, mut stars, mut star) = (Vec::new(), Vec::new(), None);
        for byte in text.bytes() {
            match (byte, star) {
                (b'*', None) => star = Some(Star::Within),
                (b'*', Some(_)) => star = Some(Star::Across),
                _ => {
                    literals.push(byte);
                    stars.push(star.take());
                }
            }
        }
        stars.push(star);
        match possible::can_match(&literals, &stars) {
            true => Ok(Self { literals, stars }),
            false => Err("it can match nothing"),
        }
    }

    /// Returns whether a reference, in its normalized form, or its repository matches.
    pub(super) fn matches(&self, reference: &str) -> bool {
        let reference = normalize(reference);
        let tagged = reference.split('@').next().unwrap_or_default();
        let repository = match tagged.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => tagged,
        };
        self.matches_text(&reference) || self.matches_text(repository)
    }

    /// Returns whether the whole of a text matches. Walks over it once, with the set of places that are reached: as many
    /// steps as it has bytes, times the length of the pattern.
    fn matches_text(&self, text: &str) -> bool {
        let mut reached = vec![false; self.stars.len()];
        reached[0] = true;
        for byte in text.bytes() {
            let mut next = vec![false; reached.len()];
            for (place, star) in self.stars.iter().enumerate().filter(|&(place, _)| reached[place]) {
                next[place] |= star.is_some_and(|star| star == Star::Across || !is_separator(byte));
                if self.literals.get(place) == Some(&byte) {
                    next[place + 1] = true;
                }
            }
            reached = next;
        }
        reached[self.literals.len()]
    }
}

/// Returns whether `*` stops at a byte.
fn is_separator(byte: u8) -> bool {
    b"/:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that Larder's matcher is held to as well.
    const CASES: &str = include_str!("../../../../tests/fixtures/patterns.txt");

    /// Every case of the table holds.
    #[test]
    fn cases() {
        let mut count = 0;
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let pattern = Pattern::parse(words[0]);
            match words[1..] {
                // What it may have meant is Larder's to say.
                ["refused", ..] => assert!(pattern.is_err(), "{line}"),
                [reference, expected @ ("matches" | "differs")] => {
                    assert_eq!(pattern.expect(line).matches(reference), expected == "matches", "{line}");
                }
                _ => panic!("{line}"),
            }
            count += 1;
        }
        assert!(count > 80, "{count} cases");
    }

    /// A text that is no pattern is refused.
    #[test]
    fn not_patterns() {
        for text in ["", "docker.io/[ab]", "docker.io/***", "docker.io/é"] {
            assert_eq!(Pattern::parse(text).unwrap_err(), "not a reference pattern", "{text}");
        }
    }
}
