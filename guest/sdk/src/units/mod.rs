//! Quantities that operators write and policies compute with: each carries its unit in its type.

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
