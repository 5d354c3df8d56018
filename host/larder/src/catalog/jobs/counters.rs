//! What all runs of a job add up to, for as long as its home exists: counters that no restart and no expiry sets back.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;

use crate::records::{JobCause, JobName, JobOutcome, SpareCause};

/// The upper limits of the buckets of sizes, in bytes: 1 MiB to 1 TiB.
const SIZES: [u64; 6] = [1 << 20, 16 << 20, 256 << 20, 4 << 30, 64 << 30, 1 << 40];
/// The upper limits of the buckets of durations, in milliseconds.
const DURATIONS: [u64; 6] = [100, 1_000, 10_000, 60_000, 600_000, 3_600_000];

/// A number that runs add to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Runs.
    Attempts(JobCause, JobOutcome),
    /// Images that went.
    Removed,
    /// Images that were to go and were left alone.
    Spared(SpareCause),
    /// A sum, and the number of what it is the sum of, by size.
    Measured(Measure),
}

/// Something that is measured of each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bytes that were to become free.
    Target,
    /// Bytes that became free.
    Freed,
    /// Milliseconds.
    Duration,
}

/// What all runs of a job add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobCounters {
    /// The job, which may not be in the file any longer.
    pub job: JobName,
    /// Runs, by cause and outcome.
    pub attempts: Vec<AttemptCount>,
    /// Images that went.
    pub removed: u64,
    /// Images that were to go and were left alone, by cause.
    pub spared: Vec<SpareCount>,
    /// The bytes that were to become free, of runs with a goal.
    pub target_bytes: Histogram,
    /// The bytes that became free.
    pub freed_bytes: Histogram,
    /// The time that runs took, in milliseconds.
    pub duration_ms: Histogram,
}

/// A number of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AttemptCount {
    /// What made them run.
    pub cause: JobCause,
    /// What became of them.
    pub outcome: JobOutcome,
    /// How many they are.
    pub count: u64,
}

/// A number of images that were left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpareCount {
    /// Why.
    pub cause: SpareCause,
    /// How many they are.
    pub count: u64,
}

/// A number of values, by size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// The sum of all.
    pub sum: u64,
    /// How many there are in each range of sizes, from the smallest to the largest.
    pub buckets: Vec<Bucket>,
}

/// A number of values in a range of sizes, which begins where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The largest value in it; absent of the last range, which has no end.
    pub at_most: Option<u64>,
    /// How many there are.
    pub count: u64,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Target, Self::Freed, Self::Duration];

    fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Freed => "freed",
            Self::Duration => "duration",
        }
    }

    fn limits(self) -> &'static [u64] {
        match self {
            Self::Target | Self::Freed => &SIZES,
            Self::Duration => &DURATIONS,
        }
    }
}

impl Histogram {
    fn empty(measure: Measure) -> Self {
        let limits = measure.limits().iter().copied().map(Some).chain([None]);
        Self { sum: 0, buckets: limits.map(|at_most| Bucket { at_most, count: 0 }).collect() }
    }

    /// Returns how many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}

impl JobCounters {
    fn of(job: JobName) -> Self {
        Self {
            job,
            attempts: Vec::new(),
            removed: 0,
            spared: Vec::new(),
            target_bytes: Histogram::empty(Measure::Target),
            freed_bytes: Histogram::empty(Measure::Freed),
            duration_ms: Histogram::empty(Measure::Duration),
        }
    }

    fn histogram(&mut self, measure: Measure) -> &mut Histogram {
        match measure {
            Measure::Target => &mut self.target_bytes,
            Measure::Freed => &mut self.freed_bytes,
            Measure::Duration => &mut self.duration_ms,
        }
    }

    /// Adds what is on record under these names. What another version wrote, and this one does not know, is left out.
    fn add(&mut self, name: &str, label: &str, value: u64) {
        let word = |word: &str| Value::from(word);
        match name {
            "attempts" => {
                let Some((cause, outcome)) = label.split_once('/') else { return };
                if let (Ok(cause), Ok(outcome)) =
                    (serde_json::from_value(word(cause)), serde_json::from_value(word(outcome)))
                {
                    self.attempts.push(AttemptCount { cause, outcome, count: value });
                }
            }
            "removed" => self.removed = value,
            "spared" => {
                if let Ok(cause) = serde_json::from_value(word(label)) {
                    self.spared.push(SpareCount { cause, count: value });
                }
            }
            name => {
                let Some(measure) = Measure::ALL.into_iter().find(|measure| measure.name() == name) else {
                    return;
                };
                let histogram = self.histogram(measure);
                if label == "sum" {
                    histogram.sum = value;
                    return;
                }
                // A limit that is none any longer: the range that it is in now.
                let limit = label.parse::<u64>().ok();
                let is_in = |bucket: &&mut Bucket| match (limit, bucket.at_most) {
                    (_, None) => true,
                    (limit, at_most) => limit.is_some() && limit <= at_most,
                };
                if let Some(bucket) = histogram.buckets.iter_mut().find(is_in) {
                    bucket.count += value;
                }
            }
        }
    }
}

/// Adds what a run comes to.
pub(super) fn add(connection: &Connection, job: &JobName, counts: &[(Counter, u64)]) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO larder_job_count (job, name, label, value) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (job, name, label) DO UPDATE SET value = value + excluded.value",
    )?;
    let mut add = |name: &str, label: &str, value: u64| {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        add.execute(params![job.as_str(), name, label, value]).map(drop)
    };
    for &(counter, value) in counts {
        match counter {
            Counter::Attempts(cause, outcome) => add("attempts", &format!("{cause}/{outcome}"), value)?,
            Counter::Removed => add("removed", "", value)?,
            Counter::Spared(cause) => add("spared", &cause.to_string(), value)?,
            Counter::Measured(measure) => {
                let limit = measure.limits().iter().find(|&&limit| value <= limit);
                let label = limit.map_or("more".to_owned(), u64::to_string);
                add(measure.name(), "sum", value)?;
                add(measure.name(), &label, 1)?;
            }
        }
    }
    Ok(())
}

/// Returns what all runs add up to, a job at a time, in the order of their names.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<JobCounters>> {
    let mut statement = connection
        .prepare_cached("SELECT job, name, label, value FROM larder_job_count ORDER BY job, name, label")?;
    let mut rows = statement.query([])?;
    let mut all: Vec<JobCounters> = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(job) = row.get_ref(0)?.as_str()?.parse::<JobName>() else { continue };
        if all.last().is_none_or(|last| last.job != job) {
            all.push(JobCounters::of(job));
        }
        if let Some(counters) = all.last_mut() {
            let value = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
            counters.add(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?, value);
        }
    }
    Ok(all)
}
