//! The form of data for people.

pub(crate) mod age;
pub(crate) mod diff;
pub(crate) mod grant;
pub(crate) mod job;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod size;
pub(crate) mod table;

/// The text for an absent value.
pub(crate) const NOTHING: &str = "-";

/// Makes a text from the cache or a policy safe to print on one line: replaces everything that could move the
/// cursor or reorder text.
pub(crate) fn plain(text: &str) -> String {
    let disarm = |character| if is_harmless(character) { character } else { char::REPLACEMENT_CHARACTER };
    text.chars().map(disarm).collect()
}

/// Makes a text of several lines safe to print, each like [`plain`].
pub(crate) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Returns true for a character that neither moves the cursor nor reorders text.
pub(crate) fn is_harmless(character: char) -> bool {
    !character.is_control() && !matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a text as a word of a command that can be pasted into a shell.
pub(crate) fn word(text: &str) -> String {
    let text = plain(text);
    let is_safe = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Returns a digest in its short form for people: its first twelve digits.
pub(crate) fn short_digest(digest: &str) -> String {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    plain(&digits.chars().take(12).collect::<String>())
}

/// Returns a number with the word for what is counted, such as `1 image` or `3 images`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No text of the cache has an effect on a terminal.
    #[test]
    fn texts_are_disarmed() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(plain_lines("a\u{9b}2Jb\nc\rd\n"), "a\u{fffd}2Jb\nc\u{fffd}d\n");
    }

    /// A word is quoted if a shell would interpret it.
    #[test]
    fn words() {
        let table = [
            ("keep=2", "keep=2"),
            ("./a.toml", "./a.toml"),
            ("only=[\"a\"]", "'only=[\"a\"]'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ];
        for (text, expected) in table {
            assert_eq!(word(text), expected);
        }
    }

    /// Digests are shortened with or without their algorithm, and short texts stay unchanged.
    #[test]
    fn digests_are_shortened() {
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_digest("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_digest("sha256:é"), "é");
    }

    /// One is singular, everything else plural.
    #[test]
    fn counts() {
        assert_eq!((count(0, "image"), count(1, "image")), ("0 images".to_owned(), "1 image".to_owned()));
    }
}
