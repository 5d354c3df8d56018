//! The line of a run in the log.

use larder::job::{JobOutcome, JobRun, JobRunRecord, Mode};

use crate::render::count;
use crate::render::job::held;
use crate::render::size::size;

/// Writes the line of a run.
pub(super) fn run(ran: &JobRun) {
    let record = &ran.record;
    let report = &record.report;
    let missing = report.goal_bytes.map(|_| report.unmet_bytes);
    let outcome = record.outcome.map(|outcome| outcome.to_string());
    let took = record.ended_at.map(|ended| (ended - record.started_at).num_milliseconds());
    let held = held_in_words(record);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run = record.id,
                job = record.job.as_str(),
                cause = %record.cause,
                mode = %record.mode,
                outcome = outcome.as_deref(),
                removed = report.removed,
                spared = report.spared,
                freed_bytes = report.freed_bytes,
                missing_bytes = missing,
                problem = report.problem.as_deref(),
                held = held.as_deref(),
                duration_ms = took,
                "{}",
                in_words(record)
            )
        };
    }
    if record.outcome.is_some_and(JobOutcome::is_failure) {
        line!(error);
    } else if report.problem.is_some() || report.unmet_bytes > 0 {
        line!(warn);
    } else {
        line!(info);
    }
    for note in &report.notes {
        tracing::warn!(run = record.id, job = record.job.as_str(), "`{}`: {note}", record.job);
    }
}

/// Such as ``nightly` (schedule): success, removed 3 images, freed 12.0 MiB``.
fn in_words(record: &JobRunRecord) -> String {
    let report = &record.report;
    let outcome = record.outcome.map_or_else(|| "no outcome".to_owned(), |outcome| outcome.to_string());
    let (removed, freed) = (count(report.removed as usize, "image"), size(report.freed_bytes));
    let did = match record.mode {
        Mode::Apply => format!("removed {removed}, freed {freed}"),
        Mode::Observe => format!("would remove {removed} and free {freed}, and only observes"),
    };
    let mut text = format!("`{}` ({}): {outcome}, {did}", record.job, record.cause);
    if report.spared > 0 {
        text += &format!(", spared {}", count(report.spared as usize, "image"));
    }
    if report.unmet_bytes > 0 {
        text += &format!(", {} are missing", size(report.unmet_bytes));
        text += &held_in_words(record).map_or_else(String::new, |held| format!(", since {held}"));
    }
    if let Some(problem) = &report.problem {
        text += &format!(": {problem}");
    }
    text
}

/// Says what holds the most, where a goal was not met.
fn held_in_words(record: &JobRunRecord) -> Option<String> {
    const SAID: usize = 3;
    let mut parts: Vec<_> = record.report.held.iter().filter(|held| held.bytes > 0).collect();
    parts.sort_by_key(|held| std::cmp::Reverse(held.bytes));
    let words = parts.iter().take(SAID).map(|part| format!("{} are {}", size(part.bytes), held(part)));
    let words = words.collect::<Vec<_>>().join(", ");
    (!words.is_empty()).then_some(words)
}
