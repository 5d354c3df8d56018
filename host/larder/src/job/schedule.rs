//! When a schedule is due.
//!
//! A schedule is a cron pattern of five fields, or six with seconds first, in a time zone. Clock changes follow Vixie
//! cron: what is due at a fixed time that does not exist is due at the first instant after the gap, and what is due at
//! a fixed time that comes twice is due once. A pattern with `*` or a step in its hours or minutes skips what does not
//! exist, and is due in both of two equal hours.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::reading::did_you_mean;

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Arc<Cron>,
    zone: TimeZone,
}

/// Two schedules are equal if they are written in the same way, in the same zone.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

/// Why there is no schedule, or no next time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The pattern does not parse.
    #[error("`{pattern}` is no cron pattern: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The problem.
        problem: String,
    },
    /// The pattern is never due.
    #[error("`{0}` is never due: there is no such day")]
    Never(String),
    /// There is no zone of this name in the time zone data of this system.
    #[error("there is no time zone `{zone}`")]
    Zone {
        /// The name.
        zone: String,
        /// A question that names the closest zone, if one is close.
        suggestion: Option<String>,
    },
}

/// The way in which the clock changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockChangeKind {
    /// The clock goes forward: the times between do not exist.
    Gap,
    /// The clock goes back: the times between come twice.
    Overlap,
}

/// A change of the clock that a schedule meets: at least one of its times falls into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockChange {
    /// The instant of the change.
    pub at: DateTime<Utc>,
    /// The kind: times are left out, or come twice.
    pub kind: ClockChangeKind,
    /// The first local time that does not exist or comes twice, such as `2027-03-28T02:00:00`.
    pub from: String,
    /// The first local time after those.
    pub until: String,
    /// The local time of the schedule in between, the first if there are several.
    pub scheduled: String,
    /// The times at which the schedule is due in the six hours around the change, with offsets.
    pub due: Vec<String>,
}

/// The number of clock changes behind which a search begins anew.
const CHANGES: usize = 3;

/// The number of times around a clock change that are listed at most.
const LISTED: usize = 4;

impl Schedule {
    /// Parses a pattern of five fields (minute, hour, day of the month, month, day of the week), or six with seconds
    /// first. Names such as `@daily` are patterns, too.
    ///
    /// # Errors
    /// [`ScheduleError::Pattern`] for what does not parse, [`ScheduleError::Never`] for a day that does not come, such as
    /// 30 February, and [`ScheduleError::Zone`] for a name that the time zone data of the system does not have.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone = find_zone(zone)?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(pattern).map_err(|error| ScheduleError::Pattern {
            pattern: pattern.to_owned(),
            problem: explained(pattern, &error.to_string()),
        })?;
        let schedule = Self { text: pattern.to_owned(), cron: Arc::new(cron), zone };
        // Any year of four has each day that there is.
        let next = schedule.cron.find_next_occurrence(&civil::date(2024, 1, 1).at(0, 0, 0, 0), true);
        next.map_err(|_| ScheduleError::Never(pattern.to_owned()))?;
        Ok(schedule)
    }

    /// Returns the first instant after this one at which it is due. `None` if there is none within the years that
    /// calendars know, and never an instant that is not later.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let start = self.zoned(after)?;
        let found = self.cron.find_next_occurrence(&start, false).ok();
        let later = found.and_then(|next| instant(&next)).filter(|next| *next > after);
        later.or_else(|| self.next_beyond_a_gap(start.timestamp()).filter(|next| *next > after))
    }

    /// Searches anew from the next clock changes on: where a clock leaves out a whole day, the usual search finds nothing.
    fn next_beyond_a_gap(&self, after: Timestamp) -> Option<DateTime<Utc>> {
        self.zone.following(after).take(CHANGES).find_map(|change| {
            let end = change.timestamp().to_zoned(self.zone.clone());
            // What the clock would have shown is left out, up to what it shows.
            let before = Timestamp::from_second(change.timestamp().as_second().checked_sub(1)?).ok()?;
            let would = self.zone.to_offset(before).to_datetime(change.timestamp());
            let left_out = self.cron.find_next_occurrence(&would, true).ok();
            if left_out.is_some_and(|time| time < end.datetime()) {
                return instant(&end);
            }
            instant(&self.cron.find_next_occurrence(&end, true).ok()?)
        })
    }

    /// Returns the pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.text
    }

    /// Returns the name of the zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("the system's zone")
    }

    /// Says in words when it is due, such as "At 03:30.".
    pub fn describe(&self) -> String {
        self.cron.describe()
    }

    /// Writes an instant as local time with its offset, such as `2027-03-28T03:30:00+02:00`.
    pub fn local(&self, at: DateTime<Utc>) -> String {
        self.zoned(at).map_or_else(|| at.to_rfc3339(), |zoned| zoned.strftime("%FT%T%:z").to_string())
    }

    /// Returns the clock changes of the year after this instant that the schedule meets.
    pub fn clock_changes(&self, from: DateTime<Utc>) -> Vec<ClockChange> {
        let Some(start) = self.zoned(from) else { return Vec::new() };
        let year = start.timestamp().as_second() + 366 * 86_400;
        let changes = self.zone.following(start.timestamp());
        let within = changes.take_while(|change| change.timestamp().as_second() < year);
        within.filter_map(|change| self.clock_change(change.timestamp())).collect()
    }

    fn clock_change(&self, at: Timestamp) -> Option<ClockChange> {
        let before = at.as_second().checked_sub(1).and_then(|second| Timestamp::from_second(second).ok())?;
        let (old, new) = (self.zone.to_offset(before), self.zone.to_offset(at));
        // What the clock would have shown without the change, and what it shows.
        let (would, shows) = (old.to_datetime(at), new.to_datetime(at));
        let kind = if shows > would { ClockChangeKind::Gap } else { ClockChangeKind::Overlap };
        let (first, last) = (would.min(shows), would.max(shows));
        let scheduled = self.cron.find_next_occurrence(&first, true).ok().filter(|time| *time < last)?;
        let mut due = Vec::new();
        let hours = |hours: i64| Timestamp::from_second(at.as_second() + hours * 3600).ok();
        let (mut next, end) = (hours(-3)?.to_zoned(self.zone.clone()), hours(3)?);
        while due.len() < LISTED
            && let Ok(found) = self.cron.find_next_occurrence(&next, false)
            && found.timestamp() < end
        {
            due.push(found.strftime("%FT%T%:z").to_string());
            next = found;
        }
        let text = |time: civil::DateTime| time.strftime("%FT%T").to_string();
        let at = DateTime::from_timestamp(at.as_second(), 0)?;
        let (from, until, scheduled) = (text(first), text(last), text(scheduled));
        (first < last).then_some(ClockChange { at, kind, from, until, scheduled, due })
    }

    fn zoned(&self, at: DateTime<Utc>) -> Option<Zoned> {
        let nanos = i32::try_from(at.timestamp_subsec_nanos()).ok()?;
        Some(Timestamp::new(at.timestamp(), nanos).ok()?.to_zoned(self.zone.clone()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.zone())
    }
}

/// Returns the zone of this name, or that of the system for an empty name.
fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
        // A name that differs in case is found; a city without its continent is the most frequent slip.
        let city = name.rsplit('/').next().unwrap_or(name).replace(' ', "_").to_lowercase();
        let by_city =
            names.iter().find(|zone| zone.rsplit('/').next().is_some_and(|last| last.to_lowercase() == city));
        let suggestion = match by_city {
            Some(zone) => Some(format!("did you mean `{zone}`?")),
            None => did_you_mean(&name.replace(' ', "_"), &names),
        };
        ScheduleError::Zone { zone: name.to_owned(), suggestion }
    })
}

fn instant(at: &Zoned) -> Option<DateTime<Utc>> {
    let at = at.timestamp();
    DateTime::from_timestamp(at.as_second(), u32::try_from(at.subsec_nanosecond()).ok()?)
}

/// Says what is wrong with a pattern, in the words of this file where the parser's are of its own.
fn explained(pattern: &str, problem: &str) -> String {
    let fields = pattern.split_whitespace().count();
    if !pattern.trim_start().starts_with('@') && !(5..=6).contains(&fields) {
        return format!("it has {fields} fields, and cron patterns have five, or six with seconds first");
    }
    problem
        .strip_prefix("Component error: ")
        .or_else(|| problem.strip_prefix("Invalid pattern: "))
        .unwrap_or(problem)
        .trim_end_matches('.')
        .to_owned()
}
