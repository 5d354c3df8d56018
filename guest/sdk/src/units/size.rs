//! Amounts of data.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{UnitError, split_decimal};

/// A number of bytes, written as `20GiB`, `1.5TB`, `500MB` or as a plain number.
///
/// `kB`, `MB`, `GB`, `TB`, `PB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB`, `PiB` powers of 1024.
///
/// ```
/// # use larder_guest::Size;
/// let size: Size = "1.5GiB".parse().unwrap();
/// assert_eq!(size.bytes(), 1_610_612_736);
/// assert_eq!(size.to_string(), "1.5GiB");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const DECIMAL: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
const BINARY: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const EXPECTED: &str =
    "not a size: expected a number and a unit, such as `20GiB`, `1.5TB` or `500MB`, or a number of bytes";
const TOO_LARGE: &str = "too large a size";

impl Size {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, EXPECTED);
        let (whole, millionths, unit) = split_decimal(text).ok_or_else(error)?;
        let factor = unit_factor(unit).ok_or_else(error)?;
        let millionths = u64::from(millionths);
        // Rounded down. In two steps, since a product of the two need not fit.
        let part = millionths * (factor / 1_000_000) + millionths * (factor % 1_000_000) / 1_000_000;
        let bytes = whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(part));
        bytes.map(Self).ok_or_else(|| UnitError::new(text, TOO_LARGE))
    }
}

/// How many bytes a unit stands for. `KB` is a spelling of `kB`; no unit at all is bytes.
fn unit_factor(unit: &str) -> Option<u64> {
    let unit = match unit {
        "" => "B",
        "KB" => "kB",
        unit => unit,
    };
    let power = |units: &[&str], base: u64| {
        let exponent = units.iter().position(|&name| name == unit)?;
        base.checked_pow(u32::try_from(exponent).ok()?)
    };
    power(&DECIMAL, 1000).or_else(|| power(&BINARY, 1024))
}

/// In the largest binary unit that it fills, with one decimal, rounded down: `1.4GiB`, `20GiB`, `512B`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = (1..BINARY.len()).rev().find(|&e| self.0 >> (10 * e) > 0).unwrap_or(0);
        let unit = 1_u64 << (10 * exponent);
        // The largest unit is 2⁵⁰, so ten of it fit.
        let tenths = self.0 % unit * 10 / unit;
        write!(f, "{}", self.0 / unit)?;
        if tenths > 0 {
            write!(f, ".{tenths}")?;
        }
        f.write_str(BINARY[exponent])
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `20GiB`, or a number of bytes")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes are read in decimal and binary units, and written in binary ones.
    #[test]
    fn read_and_written() {
        let table = [
            ("0", 0, "0B"),
            ("1023", 1023, "1023B"),
            ("20GiB", 20 << 30, "20GiB"),
            ("1.5TiB", 3 << 39, "1.5TiB"),
            ("500MB", 500_000_000, "476.8MiB"),
            ("1kB", 1000, "1000B"),
            ("1KB", 1000, "1000B"),
            ("2.000001MB", 2_000_001, "1.9MiB"),
            ("18446744073709551615", u64::MAX, "16383.9PiB"),
        ];
        for (text, bytes, written) in table {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), written, "{text}");
        }
    }

    /// In JSON, a size is a number of bytes or a text.
    #[test]
    fn json() {
        assert_eq!(serde_json::from_str::<Size>("1024").unwrap(), Size(1024));
        assert_eq!(serde_json::from_str::<Size>("\"1KiB\"").unwrap(), Size(1024));
        for text in ["-1", "1.5", "null", "true", "\"lots\""] {
            assert!(serde_json::from_str::<Size>(text).is_err(), "{text}");
        }
    }

    /// What is no size is refused: an ambiguous unit, a negative number, one that does not fit.
    #[test]
    fn refused() {
        for text in ["", "GiB", "20G", "20 GiB", "20gib", "20Mb", "-1MB", "1,5GB", "1.GB", "1.0000001GB", "é"]
        {
            let message = text.parse::<Size>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{text}` is not a size: expected")), "{message}");
        }
        assert_eq!("99999PiB".parse::<Size>().unwrap_err().to_string(), "`99999PiB` is too large a size");
    }
}
