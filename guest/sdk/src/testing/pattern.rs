//! Reference patterns: `*` within one path segment or tag, `**` across segments.

use super::reference::normalize;

/// Returns whether a reference, in its normalized form, or its repository matches a pattern.
pub(super) fn matches(pattern: &str, reference: &str) -> bool {
    let reference = normalize(reference);
    let tagged = reference.split('@').next().unwrap_or_default();
    let repository = match tagged.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => tagged,
    };
    let pieces = pieces(pattern);
    matches_text(&pieces, &reference) || matches_text(&pieces, repository)
}

/// A part of a pattern.
enum Piece {
    Byte(u8),
    /// `*`.
    Within,
    /// `**`.
    Across,
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    for byte in pattern.bytes() {
        match (byte, pieces.last_mut()) {
            (b'*', Some(last @ Piece::Within)) => *last = Piece::Across,
            (b'*', _) => pieces.push(Piece::Within),
            _ => pieces.push(Piece::Byte(byte)),
        }
    }
    pieces
}

/// Returns whether the whole of a text matches. Walks over it once, with the set of places that are reached: as many steps
/// as it has bytes, times the length of the pattern.
fn matches_text(pieces: &[Piece], text: &str) -> bool {
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    pass_stars(pieces, &mut reached);
    for byte in text.bytes() {
        let mut next = vec![false; reached.len()];
        for (place, piece) in pieces.iter().enumerate().filter(|&(place, _)| reached[place]) {
            match piece {
                Piece::Byte(own) => next[place + 1] |= *own == byte,
                Piece::Within => next[place] |= !b"/:@".contains(&byte),
                Piece::Across => next[place] = true,
            }
        }
        pass_stars(pieces, &mut next);
        reached = next;
    }
    reached[pieces.len()]
}

/// A star may stand for nothing: the place behind it is reached, too.
fn pass_stars(pieces: &[Piece], reached: &mut [bool]) {
    for (place, piece) in pieces.iter().enumerate() {
        reached[place + 1] |= reached[place] && !matches!(piece, Piece::Byte(_));
    }
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
            // What is refused is Larder's to refuse.
            if let &[pattern, reference, expected @ ("matches" | "differs")] = &words[..] {
                assert_eq!(matches(pattern, reference), expected == "matches", "{line}");
                count += 1;
            }
        }
        assert!(count > 40, "{count} cases");
    }
}
