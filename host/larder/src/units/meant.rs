//! Guesses which quantity was meant by a text in the wrong spelling: `20gib`, `7 days`, `50`.
//!
//! Each guess is read as what it says. Where a text may mean two things, there is none.

use std::time::Duration;

use super::{DURATION_UNITS, Share, format_duration, read_share, read_size, split_decimal};

/// Returns the size that was probably meant.
pub(super) fn size(text: &str) -> Option<String> {
    let compact = compact(text)?;
    let (number, unit) = split_number(&compact);
    let unit = match unit.to_ascii_lowercase().trim_end_matches("bytes").trim_end_matches("byte") {
        "" | "b" => "B",
        "k" | "ki" | "kib" | "kibi" => "KiB",
        "m" | "mi" | "mib" | "mebi" => "MiB",
        "g" | "gi" | "gib" | "gibi" => "GiB",
        "t" | "ti" | "tib" | "tebi" => "TiB",
        "p" | "pi" | "pib" | "pebi" => "PiB",
        "kb" | "kilo" => "kB",
        "mb" | "mega" => "MB",
        "gb" | "giga" => "GB",
        "tb" | "tera" => "TB",
        "pb" | "peta" => "PB",
        _ => return None,
    };
    let candidate = format!("{}{unit}", number?);
    read_size(&candidate).is_some().then_some(candidate)
}

/// Returns the share that was probably meant.
pub(super) fn share(text: &str) -> Option<String> {
    let compact = compact(text)?;
    let (number, unit) = split_number(&compact);
    let number = number?;
    let candidate = match unit.to_ascii_lowercase().as_str() {
        "%" | "percent" => format!("{number}%"),
        "" => match split_decimal(&number)? {
            // A part of one: millionths are ten-thousandths of a percent.
            (0, millionths @ 1.., _) => Share { millionths }.to_string(),
            _ => format!("{number}%"),
        },
        _ => return None,
    };
    read_share(&candidate).is_some().then_some(candidate)
}

/// Returns the duration that was probably meant: numbers with units or their names, in any order.
pub(super) fn duration(text: &str) -> Option<String> {
    let mut rest = compact(&text.replace("and", ""))?;
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let (number, after) = split_number(&rest);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let unit = unit_of_time(unit)?;
        let number = number?;
        let (whole, millionths, _) = split_decimal(&number)?;
        let part = u128::from(millionths).checked_mul(unit)? / 1_000_000;
        nanos = nanos.checked_add(u128::from(whole).checked_mul(unit)?)?.checked_add(part)?;
        rest = after.to_owned();
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok().filter(|_| nanos > 0)?;
    Some(format_duration(Duration::new(seconds, (nanos % 1_000_000_000) as u32)))
}

/// Returns the length of a unit of time in nanoseconds.
fn unit_of_time(word: &str) -> Option<u128> {
    // A capital may be a month.
    if word == "M" {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let days = |days: u128| Some(days * 86_400_000_000_000);
    let unit = match word.as_str() {
        "y" | "yr" | "yrs" | "year" | "years" => return days(365),
        "mo" | "month" | "months" => return days(30),
        "week" | "weeks" => "w",
        "day" | "days" => "d",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "min" | "mins" | "minute" | "minutes" => "m",
        "sec" | "secs" | "second" | "seconds" => "s",
        unit => unit,
    };
    DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos)
}

/// Returns a text without spaces, with a point before its decimals. None if a comma may stand between thousands.
fn compact(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    let Some((whole, rest)) = text.split_once(',') else { return Some(text) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits != 3 && !rest.contains(',')).then(|| format!("{whole}.{rest}"))
}

/// Splits the number off that a text begins with, in the form in which numbers are written. Returns no number if there is
/// none.
fn split_number(text: &str) -> (Option<String>, &str) {
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, rest) = text.split_at(end);
    let number = match number.strip_prefix('.') {
        Some(decimals) => format!("0.{decimals}"),
        None => number.trim_end_matches('.').to_owned(),
    };
    (split_decimal(&number).is_some().then_some(number), rest)
}
