//! Jobs in words: what each will do.

use chrono::{DateTime, Utc};
use larder::job::{
    ClockChange, ClockChangeKind, FileSystemStatus, Held, HeldBy, Job, Mode, Pressure, Quantity, Schedule,
    Step, Trigger,
};
use larder::policy::Grant;
use serde::Serialize;

use super::plain;
use super::size::size;

/// The number of next times that are shown.
const NEXT: usize = 5;

/// A job in words.
#[derive(Serialize)]
pub(crate) struct Explained {
    job: String,
    mode: Mode,
    /// The times or the bound at which it runs, and what belongs to that.
    when: Vec<String>,
    /// The next times, RFC 3339, of a schedule.
    next_at: Vec<String>,
    /// Clock changes within a year that the schedule meets.
    clock_changes: Vec<ClockChange>,
    /// Its steps, in this order.
    steps: Vec<String>,
}

/// Explains a job on this file system.
pub(crate) fn explain(job: &Job, fs: &FileSystemStatus, now: DateTime<Utc>) -> Explained {
    let mut steps: Vec<String> = job.steps.iter().map(step).collect();
    let (when, next_at, clock_changes) = match &job.trigger {
        Trigger::Schedule { schedule, jitter } => {
            let mut when =
                vec![format!("{} in {}", schedule.describe().trim_end_matches('.'), schedule.zone())];
            if !jitter.is_zero() {
                let jitter = duration(*jitter);
                when.push(format!(
                    "on each host later by a share of its own of {jitter}, which does not change"
                ));
            }
            (when, next(schedule, now), schedule.clock_changes(now))
        }
        Trigger::Pressure(pressure) => {
            steps.insert(
                0,
                "removes what nothing owns: files and rows that no image has, and old work files".to_owned(),
            );
            (bounds(pressure, fs), Vec::new(), Vec::new())
        }
    };
    Explained { job: job.name.to_string(), mode: job.mode, when, next_at, clock_changes, steps }
}

impl Explained {
    /// Returns it as lines for people.
    pub(crate) fn lines(&self) -> String {
        let mode = match self.mode {
            Mode::Observe => " (observes: plans and keeps a record, and removes nothing)",
            Mode::Apply => "",
        };
        let mut text = format!("{}{mode}\n", self.job);
        let mut add = |key: &str, value: &str| text += &format!("  {key:<6} {}\n", plain(value));
        for (index, when) in self.when.iter().enumerate() {
            add(if index == 0 { "when" } else { "" }, when);
        }
        for (index, next) in self.next_at.iter().enumerate() {
            add(if index == 0 { "next" } else { "" }, next);
        }
        for (index, change) in self.clock_changes.iter().enumerate() {
            add(if index == 0 { "clock" } else { "" }, &clock(change));
        }
        for (index, step) in self.steps.iter().enumerate() {
            add(&format!("{}.", index + 1), step);
        }
        text
    }
}

/// Says what holds bytes, such as "in use by sandboxes and snapshots (3 images)".
pub(crate) fn held(held: &Held) -> String {
    let what = match held.by {
        HeldBy::InUse => "in use by sandboxes and snapshots",
        HeldBy::Leased => "held by live operations",
        HeldBy::Pinned => "pinned",
        HeldBy::Guarded => "kept by the guard",
        HeldBy::Young => "younger than the guard's `min-age`",
        HeldBy::Denied => "outside of what the job may remove",
        HeldBy::NotProposed => "not proposed by the job's policies, or beyond the caps of their grants",
        HeldBy::Unowned => "files of the cache that no image has and that stay for now",
        HeldBy::Elsewhere => "not in the cache",
    };
    match held.images {
        0 => what.to_owned(),
        images => format!("{what} ({})", super::count(images as usize, "image")),
    }
}

/// Returns a line for each part of the used bytes, with its size.
pub(crate) fn held_lines(all: &[Held]) -> String {
    let lines = all.iter().map(|part| format!("  {:>10}  {}", size(part.bytes), held(part)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns when a job runs, in a few words.
pub(crate) fn when(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Schedule { schedule, .. } => schedule.to_string(),
        Trigger::Pressure(pressure) => {
            let bounds = pressure.watermarks.iter().map(|watermark| match watermark.quantity {
                Quantity::Free => format!("free < {}", watermark.start),
                Quantity::Used => format!("used > {}", watermark.start),
                Quantity::InodesFree => format!("free inodes < {}", watermark.start),
            });
            bounds.collect::<Vec<_>>().join(" or ")
        }
    }
}

fn next(schedule: &Schedule, now: DateTime<Utc>) -> Vec<String> {
    let times = std::iter::successors(schedule.next_after(now), |last| schedule.next_after(*last));
    times.take(NEXT).map(|next| schedule.local(next)).collect()
}

fn bounds(pressure: &Pressure, fs: &FileSystemStatus) -> Vec<String> {
    let mut lines: Vec<String> = pressure
        .watermarks
        .iter()
        .map(|watermark| {
            let on = watermark.on(fs);
            let (start, stop) = (watermark.start, watermark.stop);
            match watermark.quantity {
                Quantity::Free => format!(
                    "begins with less than {start} free, ends with {stop} free: {} and {} of {}; {} are free now",
                    size(on.start_free),
                    size(on.stop_free),
                    size(fs.size_bytes),
                    size(fs.available_bytes),
                ),
                Quantity::Used => format!(
                    "begins with more than {start} used, ends with {stop} used: {} and {} free of {}; {} are free now",
                    size(on.start_free),
                    size(on.stop_free),
                    size(fs.size_bytes),
                    size(fs.available_bytes),
                ),
                Quantity::InodesFree => format!(
                    "begins with less than {start} of the inodes free, ends with {stop}: {} and {} of {}; {} are free now",
                    on.start_free, on.stop_free, fs.inodes, fs.inodes_free,
                ),
            }
        })
        .collect();
    lines.push(format!(
        "looks every {}; after a run, not again for {} unless it gets worse",
        duration(pressure.check_every),
        duration(pressure.settle)
    ));
    if pressure.make_room {
        lines.push("also before a pull or load that would not fit".to_owned());
    }
    lines
}

fn step(step: &Step) -> String {
    let Grant { remove, max_removals, max_bytes, max_share, .. } = &step.grant.grant;
    let config = match step.config.as_object() {
        Some(config) if config.is_empty() => String::new(),
        _ => format!(" with {}", step.config),
    };
    let patterns: Vec<String> = remove.iter().map(ToString::to_string).collect();
    let may = if patterns.is_empty() { "nothing".to_owned() } else { patterns.join(", ") };
    let caps: Vec<String> = [
        max_removals.map(|cap| super::count(cap as usize, "image")),
        max_bytes.map(|cap| cap.to_string()),
        max_share.map(|cap| format!("{cap} of the images")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let caps = if caps.is_empty() {
        ", without a cap".to_owned()
    } else {
        format!(", at most {}", caps.join(" and "))
    };
    format!("{}{config}; it may remove {may}{caps}", step.policy)
}

fn clock(change: &ClockChange) -> String {
    let due = if change.due.is_empty() {
        "it is left out".to_owned()
    } else {
        format!("due {}", change.due.join(", "))
    };
    match change.kind {
        ClockChangeKind::Gap => format!("{} does not exist: {due}", change.scheduled),
        ClockChangeKind::Overlap => format!("{} comes twice: {due}", change.scheduled),
    }
}

fn duration(duration: std::time::Duration) -> String {
    larder::policy::format_duration(duration)
}
