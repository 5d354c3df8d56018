//! The difference between two lists of lines.

use anstyle::{AnsiColor, Style};
use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::plain;

/// The number of equal lines that are shown around those that differ.
const CONTEXT: usize = 3;
const GONE: Style = AnsiColor::Red.on_default();
const NEW: Style = AnsiColor::Green.on_default();

/// Returns the lines of both lists, those only in `before` with `-` and those only in `after` with `+`, each safe to
/// print. Returns no lines if the lists are equal.
pub(crate) fn lines(before: &[String], after: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in group_diff_ops(capture_diff_slices(Algorithm::Myers, before, after), CONTEXT) {
        if !lines.is_empty() {
            lines.push(" …".to_owned());
        }
        for change in group.iter().flat_map(|op| op.iter_changes(before, after)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            lines.push(format!("{sign}{}", plain(&change.value())));
        }
    }
    lines
}

/// Returns the same difference in colours, with the names of both lists, indented by this many spaces.
pub(crate) fn render(before: (&str, &[String]), after: (&str, &[String]), indent: usize) -> String {
    let mut text = String::new();
    let mut line = |style: Style, line: &str| {
        text.push_str(&format!("{:indent$}{style}{line}{style:#}\n", ""));
    };
    line(GONE, &format!("--- {}", before.0));
    line(NEW, &format!("+++ {}", after.0));
    for changed in lines(before.1, after.1) {
        let style = match changed.as_bytes() {
            [b'-', ..] => GONE,
            [b'+', ..] => NEW,
            _ => Style::new(),
        };
        line(style, &changed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    /// A difference is shown with the lines around it, and distant differences are shown separately.
    #[test]
    fn differences() {
        let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut changed = numbers.clone();
        changed[4] = "four".to_owned();
        changed.push("twenty\u{1b}".to_owned());
        let expected =
            [" 1", " 2", " 3", "-4", "+four", " 5", " 6", " 7", " …", " 17", " 18", " 19", "+twenty\u{fffd}"];
        assert_eq!(lines(&numbers, &changed), expected);
        assert_eq!(lines(&numbers, &numbers), [""; 0]);
        assert_eq!(lines(&[], &owned(&["a"])), ["+a"]);
    }
}
