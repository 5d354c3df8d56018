//! Whether a job is due, from what is remembered of it. Reads no clock and no file.
//!
//! # Schedules
//! Every time of a schedule up to `settled_at` is done with. A job is due when the first time after that has come, this
//! host's share of the jitter later. A run settles every time up to its own beginning, so what was missed is one run, late.
//! A run that fails settles nothing: it is tried again, after one minute, two, four, and at most six hours. A job that is
//! seen for the first time, or under another schedule, has no past.
//!
//! # Pressure
//! A job is due when a bound is passed, but for some time after a run only if it got worse since.
//!
//! # Clocks
//! A clock that goes back by up to a day makes nothing run twice: what is settled stays settled. One that goes back further
//! was wrong before, and what it settled counts no longer; nothing runs because of that. One that goes forward makes one
//! late run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalog::jobs::JobState;
use crate::job::file::{Job, Pressure, Trigger};
use crate::job::schedule::Schedule;
use crate::records::{FileSystemStatus, JobCause, JobRunRecord};

/// What is settled further ahead than this was settled by a wrong clock.
const FURTHEST_AHEAD: TimeDelta = TimeDelta::days(1);
/// A run that is later than this is one that was missed.
const LATE: TimeDelta = TimeDelta::minutes(10);
/// The pause after the first failure. It doubles with each further one.
const FIRST_PAUSE: TimeDelta = TimeDelta::minutes(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(6);

/// Whether a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It is.
    Now {
        cause: JobCause,
        /// The instant up to which a run settles the times of its schedule.
        settles: Option<DateTime<Utc>>,
    },
    /// It is not before this; absent if it never is.
    At(Option<DateTime<Utc>>),
    /// It is not, and what is remembered of it has to be made, or made anew.
    Unknown,
}

/// What a job is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) state: Option<&'a JobState>,
    pub(super) last: Option<&'a JobRunRecord>,
    pub(super) now: DateTime<Utc>,
    /// This host's share of the jitter, from 0 to 1.
    pub(super) share: f64,
}

/// Judges a job.
pub(super) fn due(job: &Job, situation: &Situation<'_>, fs: &FileSystemStatus) -> Due {
    let Some(state) = situation.state else { return Due::Unknown };
    match &job.trigger {
        Trigger::Schedule { schedule, jitter } => {
            if state.schedule.as_deref() != Some(&*schedule.to_string())
                || state.settled_at > situation.now + FURTHEST_AHEAD
            {
                return Due::Unknown;
            }
            scheduled(schedule, delay(*jitter, situation.share), state, situation)
        }
        Trigger::Pressure(pressure) => under_pressure(pressure, state, situation, fs),
    }
}

/// Returns when a job with a schedule is due the next time, whether or not it is now.
pub(super) fn next_time(
    schedule: &Schedule,
    jitter: Duration,
    after: DateTime<Utc>,
    share: f64,
) -> Option<DateTime<Utc>> {
    Some(schedule.next_after(after)? + delay(jitter, share))
}

/// Returns this host's own delay, in whole seconds.
pub(super) fn delay(jitter: Duration, share: f64) -> TimeDelta {
    TimeDelta::seconds((jitter.as_secs_f64() * share.clamp(0.0, 1.0)) as i64)
}

fn scheduled(schedule: &Schedule, delay: TimeDelta, state: &JobState, situation: &Situation<'_>) -> Due {
    let now = situation.now;
    let Some(at) = schedule.next_after(state.settled_at).map(|time| time + delay) else {
        return Due::At(None);
    };
    if at > now {
        return Due::At(Some(at));
    }
    if let Some(again) = retry_at(state, situation) {
        return Due::At(Some(again));
    }
    let cause = if now - at > LATE { JobCause::CatchUp } else { JobCause::Schedule };
    Due::Now { cause, settles: Some(now - delay) }
}

fn under_pressure(
    pressure: &Pressure,
    state: &JobState,
    situation: &Situation<'_>,
    fs: &FileSystemStatus,
) -> Due {
    let now = situation.now;
    let look = now.checked_add_signed(TimeDelta::from_std(pressure.check_every).unwrap_or(TimeDelta::MAX));
    if !pressure.is_passed(fs) {
        return Due::At(look);
    }
    if let Some(again) = retry_at(state, situation) {
        return Due::At(look.into_iter().chain([again]).min());
    }
    // What failed is tried again once that is due. A clock that went back says nothing about the time since a run.
    let last = situation.last.filter(|_| state.failures == 0);
    let ended = last.and_then(|last| last.ended_at.zip(last.report.after)).filter(|(at, _)| *at <= now);
    if let Some((ended_at, after)) = ended
        && (now - ended_at).to_std().unwrap_or_default() < pressure.settle
        && !pressure.is_worse(fs, &after)
    {
        let settled =
            TimeDelta::from_std(pressure.settle).ok().and_then(|settle| ended_at.checked_add_signed(settle));
        return Due::At(look.into_iter().chain(settled).min());
    }
    Due::Now { cause: JobCause::Pressure, settles: None }
}

/// Returns when a job that failed is tried again, if that is to come.
fn retry_at(state: &JobState, situation: &Situation<'_>) -> Option<DateTime<Utc>> {
    let ended_at = situation.last?.ended_at?;
    let doublings = state.failures.checked_sub(1)?.min(16);
    let pause = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
    let again = ended_at + pause;
    (again > situation.now && again - situation.now <= pause).then_some(again)
}
