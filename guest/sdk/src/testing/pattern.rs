//! Reference patterns: `*` within one path segment or tag, `**` across segments.

use super::reference::normalize;

/// Whether a reference, in its normalized form, matches a pattern.
pub(super) fn matches(pattern: &str, reference: &str) -> bool {
    matches_bytes(pattern.as_bytes(), normalize(reference).as_bytes())
}

fn matches_bytes(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| matches_bytes(rest, &text[n..])),
        [b'*', rest @ ..] => {
            let segment = text.iter().position(|byte| b"/:@".contains(byte)).unwrap_or(text.len());
            (0..=segment).any(|n| matches_bytes(rest, &text[n..]))
        }
        [byte, rest @ ..] => text.first() == Some(byte) && matches_bytes(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One star stays within a segment or tag, two go across, and the whole reference has to match.
    #[test]
    fn stars() {
        let table = [
            ("**", "python", true),
            ("docker.io/library/python:*", "python:3.12", true),
            ("docker.io/*:*", "python:3.12", false),
            ("docker.io/acme/**", "docker.io/acme/app:1", true),
            ("docker.io/acme/*", "docker.io/acme/app:1", false),
            ("docker.io/acme/app", "docker.io/acme/app:1", false),
            ("docker.io/acme/app:v*", "docker.io/acme/app:v1.2", true),
        ];
        for (pattern, reference, expected) in table {
            assert_eq!(matches(pattern, reference), expected, "{pattern} against {reference}");
        }
    }
}
