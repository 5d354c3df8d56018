//! Quantities in the form that people write in a grant: `20GiB`, `25%`, `1h30m`.
//!
//! Each prints in the form that it is parsed from, and parses back to exactly the same value. The guest SDK reads the same
//! grammar in the configs of policies: `tests/fixtures/quantities.txt` has the cases that both are held to.

mod meant;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The error for text that is not a quantity of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}{}", DidYouMean(.meant.as_deref()))]
pub struct UnitError {
    text: String,
    expected: &'static str,
    /// The right spelling of what was probably meant.
    meant: Option<String>,
}

impl UnitError {
    fn new(text: &str, expected: &'static str, meant: fn(&str) -> Option<String>) -> Self {
        // A long text is no quantity in the wrong spelling.
        let meant = if text.len() <= 80 { meant(text) } else { None };
        Self { text: text.chars().take(80).collect(), expected, meant }
    }
}

/// A suggestion as the end of a message.
struct DidYouMean<'a>(Option<&'a str>);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |meant| write!(f, "; did you mean `{meant}`?"))
    }
}

/// A number of bytes, written with a unit: `512B`, `64MiB`, `20GiB`, or decimal, `20GB`. A number without one is of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const A_SIZE: &str = "a size such as `512B`, `64MiB` or `20GiB`";
const BINARY_UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const OTHER_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

impl ByteSize {
    /// Makes a size of this many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Makes a size of this many times 1024 bytes, or the largest size if that does not fit.
    pub const fn kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// Makes a size of this many times 1024² bytes, or the largest size if that does not fit.
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// Makes a size of this many times 1024³ bytes, or the largest size if that does not fit.
    pub const fn gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// Returns the number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// Returns the size as a length in memory, or the maximum length if it does not fit.
    #[cfg(feature = "policy")]
    pub(crate) fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Writes the exact size in the largest unit that leaves no fraction. `{:#}` rounds to one digit for people.
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
        read_size(text).ok_or_else(|| UnitError::new(text, A_SIZE, meant::size))
    }
}

fn read_size(text: &str) -> Option<ByteSize> {
    let (whole, millionths, unit) = split_decimal(text)?;
    let (_, size) = BINARY_UNITS.iter().chain(&OTHER_UNITS).find(|(name, _)| *name == unit)?;
    let size = u128::from(*size);
    // Rounded down.
    let bytes = u128::from(whole) * size + u128::from(millionths) * size / 1_000_000;
    u64::try_from(bytes).ok().map(ByteSize)
}

/// A share of a whole, from `0%` to `100%`, in steps of a ten-thousandth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    /// The share in millionths, at most 1,000,000.
    millionths: u32,
}

const A_SHARE: &str = "a share from `0%` to `100%`, such as `25%` or `12.5%`";
const MILLION: u32 = 1_000_000;
/// One percent in millionths.
const PERCENT: u32 = 10_000;

impl Share {
    /// Makes a share of this many percent, or the whole if that is more than 100.
    pub const fn percent(percent: u32) -> Self {
        let millionths = percent.saturating_mul(PERCENT);
        Self { millionths: if millionths > MILLION { MILLION } else { millionths } }
    }

    /// Returns this share of a number of things, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        // A share is at most the whole, so the result fits.
        (u128::from(whole) * u128::from(self.millionths) / u128::from(MILLION)) as u64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.millionths / PERCENT, self.millionths % PERCENT) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, rest) => write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0')),
        }
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read_share(text).ok_or_else(|| UnitError::new(text, A_SHARE, meant::share))
    }
}

fn read_share(text: &str) -> Option<Share> {
    let (percent, rest) = match split_decimal(text)? {
        (percent, rest, "%") if rest % 100 == 0 => (percent, rest / 100),
        _ => return None,
    };
    let millionths = u32::try_from(percent).ok()?.checked_mul(PERCENT)?.checked_add(rest)?;
    (millionths <= MILLION).then_some(Share { millionths })
}

const A_DURATION: &str = "a duration such as `500ms`, `5s`, `1h30m` or `7d`";
/// The units of durations, largest first. Weeks are read, never written.
const DURATION_UNITS: [(&str, u128); 8] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

/// Parses a duration in the form of a grant: whole numbers with the units `w`, `d`, `h`, `m`, `s`, `ms`, `us` and `ns`, each
/// at most once and the longer ones first, such as `1h30m`.
///
/// # Errors
/// Fails if the text has another form, or is longer than 584 billion years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    read_duration(text).ok_or_else(|| UnitError::new(text, A_DURATION, meant::duration))
}

fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = &DURATION_UNITS[..];
    let mut nanos = 0_u128;
    loop {
        let (number, after) = split_digits(rest);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        nanos += u128::from(number.parse::<u64>().ok()?) * units[index].1;
        units = &units[index + 1..];
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// Writes a duration in the form that [`parse_duration`] parses.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, size) in &DURATION_UNITS[1..] {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The functions for `serde(with)` that write and read a duration as the text that [`parse_duration`] parses.
pub(crate) mod human_duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*duration))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(Text { expected: A_DURATION, parse: parse_duration })
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

/// Splits the digits off that a text begins with.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Splits `12.5GiB` into the whole part, the rest in millionths, and the unit. None without digits, with more than six
/// decimals, and where the number does not fit.
fn split_decimal(text: &str) -> Option<(u64, u32, &str)> {
    let (whole, rest) = split_digits(text);
    let whole = whole.parse().ok()?;
    let Some(rest) = rest.strip_prefix('.') else { return Some((whole, 0, rest)) };
    let (decimals, unit) = split_digits(rest);
    if !(1..=6).contains(&decimals.len()) {
        return None;
    }
    Some((whole, format!("{decimals:0<6}").parse().ok()?, unit))
}

/// A parser of a text, which names what it expected if the text is invalid.
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

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        Err(self.not_a_text(&number.to_string()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        Err(self.not_a_text(&number.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        Err(self.not_a_text(&number.to_string()))
    }
}

impl<T> Text<T> {
    /// Returns the error for a number in the place of the text.
    fn not_a_text<E: serde::de::Error>(&self, number: &str) -> E {
        let meant =
            (self.parse)(number).err().and_then(|error| error.meant).map(|meant| format!("\"{meant}\""));
        let Self { expected, .. } = self;
        E::custom(format_args!("the number `{number}` is not {expected}{}", DidYouMean(meant.as_deref())))
    }
}

/// A parser of a size.
struct Size;

impl serde::de::Visitor<'_> for Size {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_SIZE)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        let bytes = u64::try_from(bytes);
        bytes.map(ByteSize).map_err(|_| E::custom("a size is not negative"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Size)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text { expected: A_SHARE, parse: Self::from_str })
    }
}

#[cfg(test)]
mod tests;
