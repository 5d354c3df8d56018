//! Lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{UnitError, split_digits};

/// A length of time, written as `30d`, `12h`, `90m` or `1w2d`: whole weeks, days, hours, minutes and seconds.
///
/// A day has 24 hours. An age is never negative.
///
/// ```
/// # use larder_guest::Age;
/// let age: Age = "1w2d".parse().unwrap();
/// assert_eq!(age, Age::from_seconds(9 * 86_400));
/// assert_eq!(age.to_string(), "9d");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(Duration);

/// The units of an age, the longest first, in seconds. Weeks are read, never written.
const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

const EXPECTED: &str =
    "not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`";
const TOO_LONG: &str = "too long a time";

impl Age {
    /// No time at all.
    pub const ZERO: Age = Age(Duration::ZERO);

    /// This many seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// This many days.
    pub const fn from_days(days: u32) -> Self {
        Self::from_seconds(days as u64 * 86_400)
    }

    /// This age as a standard duration.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// This age so many times over; none where that is too long to be counted.
    pub fn checked_mul(self, factor: u32) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }
}

impl From<Duration> for Age {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Age {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text;
        // Each unit at most once, the longer ones first: `1d1d` and `1m1h` are slips, not ages.
        let mut units = &UNITS[..];
        let mut seconds = 0_u64;
        loop {
            let (digits, tail) = split_digits(rest);
            let mut tail = tail.chars();
            let unit = tail.next().filter(|_| !digits.is_empty());
            let index = unit.and_then(|unit| units.iter().position(|&(name, _)| name == unit));
            let index = index.ok_or_else(|| UnitError::new(text, EXPECTED))?;
            let part = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(units[index].1));
            let sum = part.and_then(|part| seconds.checked_add(part));
            seconds = sum.ok_or_else(|| UnitError::new(text, TOO_LONG))?;
            units = &units[index + 1..];
            rest = tail.as_str();
            if rest.is_empty() {
                return Ok(Self::from_seconds(seconds));
            }
        }
    }
}

/// The two largest units that are not zero: `12d4h`, `90s` as `1m30s`. Less than a second is `0s`.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seconds = self.0.as_secs();
        let mut written = 0;
        for (name, length) in &UNITS[1..] {
            let count = seconds / length;
            seconds %= length;
            if count > 0 && written < 2 {
                write!(f, "{count}{name}")?;
                written += 1;
            }
        }
        if written == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What operators write is read, and written back in days and smaller units, at most two of them.
    #[test]
    fn read_and_written() {
        let table = [
            ("30d", 30 * 86_400, "30d"),
            ("12h", 43_200, "12h"),
            ("90m", 5_400, "1h30m"),
            ("1w2d", 777_600, "9d"),
            ("1d1h1m1s", 90_061, "1d1h"),
            ("7d5m", 605_100, "7d5m"),
            ("0s", 0, "0s"),
            ("007d", 604_800, "7d"),
        ];
        for (text, seconds, written) in table {
            let age: Age = text.parse().unwrap();
            assert_eq!(age, Age::from_seconds(seconds), "{text}");
            assert_eq!(age.to_string(), written, "{text}");
        }
        assert_eq!(Age::from(Duration::from_millis(999)).to_string(), "0s");
    }

    /// What is no length of time is refused, with an example of one; what cannot be counted is refused, too.
    #[test]
    fn refused() {
        for text in ["", "30", "d", "-1d", "1.5d", "1d ", " 1d", "1d1d", "1m1h", "1y", "1dé", "é"] {
            let message = text.parse::<Age>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{text}` is not a length of time")), "{message}");
        }
        for text in ["99999999999999999999d", "9999999999999999999w", "18446744073709551615s1s"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
        assert_eq!(
            "9999999999999999999w".parse::<Age>().unwrap_err().to_string(),
            "`9999999999999999999w` is too long a time"
        );
    }
}
