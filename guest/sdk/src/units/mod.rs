//! Quantities that operators write and policies compute with: each carries its unit in its type.

mod age;
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
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A decimal number such as `1.5`, as its value in units of 10⁻⁶ and the text behind it.
///
/// None without digits, with more than six decimals, and where the value does not fit.
fn split_decimal(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = split_digits(text);
    let whole = whole.parse::<u64>().ok()?;
    let Some(rest) = rest.strip_prefix('.') else { return Some((u128::from(whole) * 1_000_000, rest)) };
    let (decimals, rest) = split_digits(rest);
    if decimals.is_empty() || decimals.len() > 6 {
        return None;
    }
    let millionths: u128 = format!("{decimals:0<6}").parse().ok()?;
    Some((u128::from(whole) * 1_000_000 + millionths, rest))
}
