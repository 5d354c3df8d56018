use proptest::prelude::*;
use regex::Regex;

use super::*;

/// The table that the guest SDK's matcher is held to as well.
const CASES: &str = include_str!("../../../../tests/fixtures/patterns.txt");

/// Every case of the table holds: what matches, what differs, and what is refused with what it may have meant.
#[test]
fn cases() {
    let mut count = 0;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        count += 1;
        let words: Vec<&str> = line.split(' ').collect();
        let pattern = words[0].parse::<ReferencePattern>();
        match words[1..] {
            ["refused", ref meant @ ..] => {
                let message = pattern.expect_err(line).to_string();
                for meant in meant {
                    assert!(meant.parse::<ReferencePattern>().is_ok(), "{line}: {meant}");
                }
                let meant =
                    (!meant.is_empty()).then(|| format!("; did you mean `{}`?", meant.join("` or `")));
                let expected = format!("`{}` can match nothing: ", words[0]);
                assert!(message.starts_with(&expected), "{line}: {message}");
                assert!(message.ends_with(meant.as_deref().unwrap_or("python:3.12`")), "{line}: {message}");
            }
            [reference, expected @ ("matches" | "differs")] => {
                let matches = pattern.expect(line).matches(&reference.parse().expect(line));
                assert_eq!(matches, expected == "matches", "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    assert!(count > 50, "{count} cases");
}

fn texts() -> impl Strategy<Value = String> {
    let pieces = ["a", "b", "/", ":", "@", ".", "-", "*", "**", "docker.io/", "a.b/", "localhost", "sha256:"];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..12).prop_map(|pieces| {
        // Three stars in a row are no pattern.
        let mut text = String::new();
        for piece in pieces {
            if !(piece.starts_with('*') && text.ends_with('*')) {
                text += piece;
            }
        }
        text
    })
}

fn references() -> impl Strategy<Value = Reference> {
    let word = || prop::sample::select(vec!["a", "b", "a.b", "a-b", "docker.io", "localhost"]);
    let end = prop::sample::select(vec![":a", ":b.-a", "", "@", ":a@"]);
    (prop::collection::vec(word(), 1..4), end).prop_map(|(words, end)| {
        let mut text = words.join("/") + end;
        if text.ends_with('@') {
            text += &format!("sha256:{}", "ab".repeat(32));
        }
        text.parse().expect("a reference")
    })
}

proptest! {
    /// A pattern matches what the regular expression matches that it stands for.
    #[test]
    fn as_a_regular_expression(pattern in texts(), long: bool, text in "[ab/:@.+é]{0,12}", end in 0..14_usize) {
        // More than 64 characters are walked in another way.
        let lead = if long { "x".repeat(70) } else { String::new() };
        let (pattern, text) = (format!("{lead}{pattern}"), format!("{lead}{text}"));
        let end = lead.len() + end;
        let expression: String = pattern.split_inclusive("**").map(|piece| {
            let (piece, across) = piece.strip_suffix("**").map_or((piece, ""), |piece| (piece, ".*"));
            piece.split('*').map(regex::escape).collect::<Vec<_>>().join("[^/:@]*") + across
        }).collect();
        let expression = Regex::new(&format!("^(?:{expression})$")).unwrap();
        let expected = expression.is_match(&text) || text.get(..end).is_some_and(|text| expression.is_match(text));
        let pattern = ReferencePattern::read(&pattern).unwrap();
        let end = text.get(..end).map(str::len).filter(|&end| end < text.len());
        prop_assert_eq!(pattern.matches_to(&text, end), expected, "{} against {} to {:?}", pattern, text, end);
    }

    /// Whatever matches some reference is not refused, in whichever way it was made.
    #[test]
    fn what_matches_is_possible(pattern in texts(), reference in references()) {
        let read = ReferencePattern::read(&pattern).unwrap();
        if read.matches(&reference) {
            prop_assert!(pattern.parse::<ReferencePattern>().is_ok(), "{} matches {}", pattern, reference.as_str());
        }
    }

    /// A reference is a pattern, that matches itself; so is its repository.
    #[test]
    fn references_are_patterns(reference in references()) {
        for text in [reference.as_str(), reference.repository()] {
            prop_assert!(text.parse::<ReferencePattern>().is_ok_and(|pattern| pattern.matches(&reference)), "{}", text);
        }
    }
}

/// A text that is not a reference is matched as it stands.
#[test]
fn odd_texts() {
    let matches = |pattern: &str| {
        let pattern: ReferencePattern = pattern.parse().expect("a pattern");
        pattern.matches_text("NOT A REFERENCE", None)
    };
    assert_eq!(["**", "**A**", "docker.io/**"].map(matches), [true, true, false]);
}

/// The longest pattern with the most stars takes no more steps than any other of its length.
#[test]
fn stars_are_not_tried_one_by_one() {
    let pattern = "**a*a".repeat(16) + &"a".repeat(900);
    let pattern = ReferencePattern::read(&pattern).expect("a pattern");
    let text = format!("docker.io/{}", "a".repeat(500));
    for _ in 0..1000 {
        assert!(!pattern.matches_text(&text, None));
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
