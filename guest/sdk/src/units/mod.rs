//! Quantities that operators write and policies compute with: each carries its unit in its type.
//!
//! The host reads the same grammar in grants and guards: `tests/fixtures/quantities.txt` has the cases that both are held to.

mod age;
#[cfg(not(target_arch = "wasm32"))]
mod schema;
mod share;
mod size;
mod timestamp;

use std::fmt;

pub use age::Age;
pub use share::Share;
pub use size::Size;
pub use timestamp::Timestamp;

/// A text that is not the quantity it should be. As text, it says what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

impl UnitError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(40).collect(), expected }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}", self.text, self.expected)
    }
}

impl std::error::Error for UnitError {}

/// Splits off the digits a text begins with.
fn split_digits(text: &str) -> (&str, &str) {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (text.strip_suffix(rest).unwrap_or(text), rest)
}

/// A decimal number such as `1.5`, as its whole part, the rest in units of 10⁻⁶, and the text behind it.
///
/// None without digits, with more than six decimals, and where the value does not fit.
fn split_decimal(text: &str) -> Option<(u64, u32, &str)> {
    let (whole, rest) = split_digits(text);
    let whole = whole.parse::<u64>().ok()?;
    let Some(rest) = rest.strip_prefix('.') else { return Some((whole, 0, rest)) };
    let (decimals, rest) = split_digits(rest);
    if decimals.is_empty() || decimals.len() > 6 {
        return None;
    }
    let millionths = format!("{decimals:0<6}").parse().ok()?;
    Some((whole, millionths, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that the host is held to as well.
    const CASES: &str = include_str!("../../../../tests/fixtures/quantities.txt");

    /// Every case of the table holds: what each text amounts to, and what is refused with the text.
    #[test]
    fn cases() {
        let mut count = 0;
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            count += 1;
            let (kind, rest) = line.split_once(" `").expect(line);
            let (text, expected) = rest.rsplit_once("` ").expect(line);
            let read = match kind {
                "age" => text.parse().map(|age: Age| age.as_duration().as_secs()),
                "size" => text.parse().map(Size::bytes),
                "share" => text.parse().map(|share: Share| share.of(Size::from_bytes(1_000_000)).bytes()),
                _ => panic!("{line}"),
            };
            match expected {
                "refused" => {
                    let error = read.expect_err(line).to_string();
                    assert!(error.starts_with(&format!("`{text}` is ")), "{error}");
                }
                number => assert_eq!(read, Ok(number.parse().expect(line)), "{line}"),
            }
        }
        assert!(count > 60, "{count} cases");
    }
}
