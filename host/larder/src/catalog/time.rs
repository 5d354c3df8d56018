//! Times in the format of the index: UTC, `YYYY-MM-DD HH:MM:SS` and a fraction of 0, 3, 6 or 9 digits.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// A source of the current time.
pub(crate) type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Parses a time of the index. Returns `None` for an invalid text: one invalid row must not hide the others.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    usual_form(text.as_bytes()).or_else(|| other_form(text)).map(|time| time.and_utc())
}

/// Formats a time for the index.
pub(super) fn format(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.9f").to_string()
}

/// Parses the form that microsandbox writes, without a format string: a listing has two times in every row.
fn usual_form(text: &[u8]) -> Option<NaiveDateTime> {
    let (date_time, fraction) = text.split_at_checked(19)?;
    let number = |from: usize, to: usize| -> Option<u32> {
        date_time[from..to]
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, separator)| date_time[at] != separator) {
        return None;
    }
    let nanoseconds = match fraction {
        [] => 0,
        [b'.', digits @ ..] if matches!(digits.len(), 1..=9) => {
            let value = digits.iter().try_fold(0_u32, |sum, byte| {
                byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0'))
            })?;
            value * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 7)?, number(8, 10)?)?.and_hms_nano_opt(
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
        nanoseconds,
    )
}

/// Parses the forms that other programs write.
fn other_form(text: &str) -> Option<NaiveDateTime> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.naive_utc());
    zoned.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time in every form that homes have is parsed, and an invalid text is not.
    #[test]
    fn forms() {
        let table = [
            ("2026-11-23 12:00:00", Some("2026-11-23T12:00:00+00:00")),
            ("2026-11-23 12:00:00.000040000", Some("2026-11-23T12:00:00.000040+00:00")),
            ("2026-11-23 12:00:00.5", Some("2026-11-23T12:00:00.500+00:00")),
            ("2026-11-23T14:00:00+02:00", Some("2026-11-23T12:00:00+00:00")),
            ("2026-11-23T12:00:00", Some("2026-11-23T12:00:00+00:00")),
            ("2026-02-30 12:00:00", None),
            ("2026-11-23 12:00:00.", None),
            ("2026-11-23 12:00:0x", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).map(|time| time.to_rfc3339()).as_deref(), expected, "{text}");
        }
    }

    /// A formatted time parses back to the same time, to the nanosecond.
    #[test]
    fn round_trip() {
        let time = DateTime::from_timestamp(1_795_000_000, 123_456_789).expect("a time");
        assert_eq!(parse(&format(time)), Some(time));
    }
}
