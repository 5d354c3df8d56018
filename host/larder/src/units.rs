//! Quantities as people write them in a grant: `20GiB`, `25%`, `1h30m`.
//!
//! Each prints in the form that it is read from, and reads back to exactly the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

impl UnitError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// A number of bytes, written with a unit: `512B`, `64MiB`, `20GiB`, or decimal, `20GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const A_SIZE: &str = "a size such as `512B`, `64MiB` or `20GiB`";
const BINARY_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL_UNITS: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];

impl ByteSize {
    /// This many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many times 1024 bytes, or the largest size where that does not fit.
    pub const fn kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// This many times 1024² bytes, or the largest size where that does not fit.
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// This many times 1024³ bytes, or the largest size where that does not fit.
    pub const fn gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// As a length in memory; the longest where it does not fit.
    #[cfg(feature = "policy")]
    pub(crate) fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Exactly, in the largest unit that leaves no fraction; `{:#}` rounds to one digit for people.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return match BINARY_UNITS.iter().find(|(_, size)| self.0 >= *size) {
                Some((unit, size)) => write!(f, "{:.1} {unit}", self.0 as f64 / *size as f64),
                None => write!(f, "{} B", self.0),
            };
        }
        match BINARY_UNITS.iter().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, A_SIZE);
        let (number, unit) = split_number(text).ok_or_else(error)?;
        let size = match unit {
            "B" => 1,
            _ => BINARY_UNITS
                .iter()
                .chain(&DECIMAL_UNITS)
                .find_map(|(name, size)| name.eq_ignore_ascii_case(unit).then_some(*size))
                .ok_or_else(error)?,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut bytes = u128::from(whole.parse::<u64>().map_err(|_| error())?) * u128::from(size);
        if number.contains('.') {
            if !(1..=9).contains(&fraction.len()) {
                return Err(error());
            }
            let digits: u128 = fraction.parse().map_err(|_| error())?;
            bytes += digits * u128::from(size) / 10_u128.pow(fraction.len() as u32);
        }
        u64::try_from(bytes).map(Self).map_err(|_| error())
    }
}

/// A share of a whole, from `0%` to `100%`, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    /// Hundredths of a percent, at most 10,000.
    hundredths: u32,
}

const A_SHARE: &str = "a share from `0%` to `100%`, such as `25%` or `12.5%`";

impl Share {
    /// This many percent; the whole where that is more than 100.
    pub const fn percent(percent: u32) -> Self {
        let hundredths = percent.saturating_mul(100);
        Self { hundredths: if hundredths > 10_000 { 10_000 } else { hundredths } }
    }

    /// This share of a number of things, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        // A share is at most the whole, so the result fits.
        (u128::from(whole) * u128::from(self.hundredths) / 10_000) as u64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hundredths / 100, self.hundredths % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, rest) if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            (whole, rest) => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, A_SHARE);
        let (number, "%") = split_number(text).ok_or_else(error)? else { return Err(error()) };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u32 = whole.parse().map_err(|_| error())?;
        let fraction: u32 = match fraction.len() {
            1 => fraction.parse::<u32>().map_err(|_| error())? * 10,
            2 => fraction.parse().map_err(|_| error())?,
            _ => return Err(error()),
        };
        match whole.checked_mul(100).and_then(|hundredths| hundredths.checked_add(fraction)) {
            Some(hundredths @ 0..=10_000) => Ok(Self { hundredths }),
            _ => Err(error()),
        }
    }
}

const A_DURATION: &str = "a duration such as `500ms`, `5s`, `1h30m` or `7d`";
/// Largest first.
const DURATION_UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

/// Reads a duration as it stands in a grant: whole numbers with the units `d`, `h`, `m`, `s`, `ms`, `us` and `ns`, such as
/// `1h30m`.
///
/// # Errors
/// Where the text is anything else, or longer than 584 billion years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::new(text, A_DURATION);
    let mut rest = text;
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let (_, size) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        nanos += u128::from(number.parse::<u64>().map_err(|_| error())?) * size;
        rest = after;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| error())?;
    if text.is_empty() { Err(error()) } else { Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32)) }
}

/// Writes a duration as [`parse_duration`] reads it.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, size) in DURATION_UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A duration as the text that [`parse_duration`] reads, for `serde(with)`.
pub(crate) mod human_duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*duration))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(Text { expected: A_DURATION, parse: parse_duration })
    }

    /// The same for a duration that may be absent; where it is written, it is there.
    pub(crate) mod option {
        use super::*;

        pub(in super::super::super) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            duration.map(format_duration).serialize(to)
        }

        pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

/// Splits `12.5GiB` into the number and the unit.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit))
}

/// Reads a text and names what was expected where something else stands.
struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, UnitError>,
}

impl<T> serde::de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

macro_rules! as_text {
    ($type:ty, $expected:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Text { expected: $expected, parse: <$type>::from_str })
            }
        }
    };
}

as_text!(ByteSize, A_SIZE);
as_text!(Share, A_SHARE);

#[cfg(test)]
mod tests {
    use super::*;

    /// A size is read with its unit, exactly, and printed so that it reads back the same.
    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("0B", 0, "0B"),
            ("512B", 512, "512B"),
            ("64MiB", 64 << 20, "64MiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("20GB", 20_000_000_000, "19531250KiB"),
            ("1024KiB", 1 << 20, "1MiB"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!((size.as_bytes(), size.to_string().as_str()), (bytes, printed));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in ["", "20", "GiB", "20 GiB", "-1B", "1.GiB", "1.2.3B", "99999999999TiB", "20GiBs"] {
            let error = text.parse::<ByteSize>().expect_err(text).to_string();
            assert_eq!(error, format!("`{text}` is not a size such as `512B`, `64MiB` or `20GiB`"));
        }
        assert_eq!(format!("{:#}", ByteSize::bytes(1_610_612_736)), "1.5 GiB");
    }

    /// A share is a percentage of at most 100, and what it allows is rounded down.
    #[test]
    fn shares() {
        for (text, whole, part) in
            [("25%", 41, 10), ("12.5%", 1000, 125), ("0.01%", 9_999, 0), ("100%", 7, 7)]
        {
            let share: Share = text.parse().expect(text);
            assert_eq!((share.of(whole), share.to_string().as_str()), (part, text));
        }
        assert_eq!(Share::percent(100).of(u64::MAX), u64::MAX);
        for text in ["", "25", "100.01%", "-1%", "1.234%", "%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    /// A duration is a row of whole numbers with units, and nothing overflows.
    #[test]
    fn durations() {
        for (text, seconds) in [("0s", 0), ("5s", 5), ("1h30m", 5400), ("7d", 604_800)] {
            let duration = parse_duration(text).expect(text);
            assert_eq!((duration.as_secs(), format_duration(duration).as_str()), (seconds, text));
        }
        let odd = Duration::new(90_061, 1_002_003);
        assert_eq!(format_duration(odd), "1d1h1m1s1ms2us3ns");
        assert_eq!(parse_duration(&format_duration(odd)), Ok(odd));
        for text in ["", "5", "s", "1.5h", "5 s", "1y", "99999999999999999999d", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
