//! Parts of a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{UnitError, split_decimal};

/// A part of a whole, written as `25%` or `12.5%`: at most `100%`, at most four decimals.
///
/// ```
/// # use larder_guest::{Share, Size};
/// let share: Share = "12.5%".parse().unwrap();
/// assert_eq!(share.of(Size::from_bytes(80)), Size::from_bytes(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    millionths: u32,
}

const EXPECTED: &str = "not a share: expected a percentage from `0%` to `100%`, such as `25%` or `12.5%`";

impl Share {
    /// This part of a size, rounded down.
    pub fn of(self, whole: crate::Size) -> crate::Size {
        let (whole, millionths) = (whole.bytes(), u64::from(self.millionths));
        // In two steps, since a product of the two need not fit. A share is at most the whole, so the sum fits.
        let part = whole / 1_000_000 * millionths + whole % 1_000_000 * millionths / 1_000_000;
        crate::Size::from_bytes(part)
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        split_decimal(text)
            .filter(|&(_, rest, unit)| unit == "%" && rest % 100 == 0)
            .and_then(|(percent, rest, _)| {
                let millionths = u32::try_from(percent).ok()?.checked_mul(10_000)?.checked_add(rest / 100)?;
                (millionths <= 1_000_000).then_some(Self { millionths })
            })
            .ok_or_else(|| UnitError::new(text, EXPECTED))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, decimals) = (self.millionths / 10_000, self.millionths % 10_000);
        if decimals == 0 {
            return write!(f, "{percent}%");
        }
        let decimals = format!("{decimals:04}");
        write!(f, "{percent}.{}%", decimals.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    /// A share is a percentage, and takes that part of a whole without overflow.
    #[test]
    fn read_and_taken() {
        let whole = Size::from_bytes(u64::MAX);
        let table = [("0%", 0), ("25%", u64::MAX / 4), ("100%", u64::MAX)];
        for (text, part) in table {
            assert_eq!(text.parse::<Share>().unwrap().of(whole), Size::from_bytes(part), "{text}");
        }
        for text in ["25%", "12.5%", "0.0001%", "100%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
    }

    /// What is no percentage of a whole is refused.
    #[test]
    fn refused() {
        for text in ["", "25", "%", "101%", "100.0001%", "-1%", "25 %", "0.00001%", "0.25"] {
            let message = text.parse::<Share>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{text}` is not a share: expected")), "{message}");
        }
    }
}
