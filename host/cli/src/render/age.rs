//! Instants in the form of ages for people.

use chrono::{DateTime, Utc};

use super::NOTHING;

/// The units: the number of seconds from which each is used, and its length in seconds.
const UNITS: [(i64, i64, &str); 7] = [
    (2 * 365 * 86_400, 365 * 86_400, "year"),
    (60 * 86_400, 30 * 86_400, "month"),
    (14 * 86_400, 7 * 86_400, "week"),
    (2 * 86_400, 86_400, "day"),
    (2 * 3600, 3600, "hour"),
    (120, 60, "minute"),
    (0, 1, "second"),
];

/// Formats the age of an instant, such as `3 days ago`, rounded down.
pub(crate) fn age(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - time).num_seconds();
    let length = seconds.unsigned_abs();
    let words = UNITS.iter().find_map(|&(from, unit, name)| {
        (length >= from.unsigned_abs()).then(|| {
            let number = length / unit.unsigned_abs();
            format!("{number} {name}{}", if number == 1 { "" } else { "s" })
        })
    });
    match words {
        Some(words) if seconds >= 0 => format!("{words} ago"),
        Some(words) => format!("in {words}"),
        // The last unit begins at nothing, so there always are words.
        None => NOTHING.to_owned(),
    }
}

/// Formats the age of an instant that may not be known.
pub(crate) fn known(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    time.map_or(NOTHING.to_owned(), |time| age(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit is the largest of which there are at least two, and the future is distinguished from the past.
    #[test]
    fn ages() {
        let now = DateTime::from_timestamp(2_000_000_000, 0).expect("an instant");
        let table = [
            (0, "0 seconds ago"),
            (1, "1 second ago"),
            (119, "119 seconds ago"),
            (120, "2 minutes ago"),
            (3 * 3600 + 59, "3 hours ago"),
            (47 * 3600, "47 hours ago"),
            (3 * 86_400, "3 days ago"),
            (13 * 86_400, "13 days ago"),
            (15 * 86_400, "2 weeks ago"),
            (61 * 86_400, "2 months ago"),
            (800 * 86_400, "2 years ago"),
            (-3 * 3600, "in 3 hours"),
        ];
        for (seconds, expected) in table {
            assert_eq!(age(now - chrono::TimeDelta::seconds(seconds), now), expected);
        }
    }
}
