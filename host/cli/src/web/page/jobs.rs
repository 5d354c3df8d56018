//! Jobs, their runs, and what the last run decided.

use chrono::{DateTime, Utc};
use larder::job::{Health, Held, JobRunRecord, JobState, JobStatus, Mode};
use larder::plan::Verdict;
use maud::{Markup, html};

use super::chart::minute;
use super::svg::at as coordinate;
use super::{Content, Decided, table};
use crate::render::age::age;
use crate::render::job::held as held_by;
use crate::render::size::size;
use crate::render::{NOTHING, plain};

/// Shows the jobs of the file.
pub(super) fn jobs(content: &Content) -> Markup {
    let Some(status) = &content.jobs else {
        return html! { p { "This home has no job file." } };
    };
    if status.jobs.is_empty() {
        return html! { p { "The job file has no jobs." } };
    }
    html! {
        div class="jobs" {
            @for status in &status.jobs { section class="job" { (job(status, content)) } }
        }
    }
}

fn job(status: &JobStatus, content: &Content) -> Markup {
    let name = status.job.as_str();
    let state = match status.state {
        JobState::Idle => "waiting",
        JobState::Due => "due",
        JobState::Running => "running",
        JobState::BackingOff => "failed, and tried again later",
    };
    let mode = match status.mode {
        Mode::Apply => "removes",
        Mode::Observe => "observes: plans, and removes nothing",
    };
    let (class, health) = match &status.health {
        Health::Ok => ("ok", "all right".to_owned()),
        Health::Warning(reason) => ("warning", format!("warning: {}", plain(reason))),
        Health::Critical(reason) => ("critical", format!("critical: {}", plain(reason))),
    };
    let instant = |at: Option<DateTime<Utc>>| match at {
        Some(at) => format!("{} UTC, {}", minute(at), age(at, content.at)),
        None => NOTHING.to_owned(),
    };
    html! {
        h3 { (name) }
        dl {
            dt { "Health" } dd class=(class) { (health) }
            dt { "Now" } dd { (state) }
            dt { "Runs" } dd { (content.when.get(name).map(String::as_str).unwrap_or_default()) }
            dt { "Mode" } dd { (mode) }
            @if status.next_at.is_some() { dt { "Next" } dd { (instant(status.next_at)) } }
            dt { "Last run" } dd { (instant(status.last.as_ref().map(|last| last.started_at))) }
            dt { "Succeeded" } dd { (instant(status.succeeded_at)) }
            @if let Some(missing) = status.missing_bytes {
                dt { "Missing" }
                dd { @if missing == 0 { "nothing: its bounds are met" } @else { (size(missing)) " until its bounds are met" } }
            }
        }
        @if let Some(last) = status.last.as_ref().filter(|last| !last.report.held.is_empty()) {
            (held(name, &last.report.held))
        }
    }
}

/// Shows what the used bytes are made of, after a run that did not reach its goal.
fn held(job: &str, held: &[Held]) -> Markup {
    const WIDTH: f64 = 1000.0;
    let all: u64 = held.iter().map(|part| part.bytes).sum();
    let part = |bytes: u64| bytes as f64 / (all.max(1) as f64);
    let places = held.iter().scan(0.0, |from, one| {
        let place = *from;
        *from += part(one.bytes) * WIDTH;
        Some(place)
    });
    let name = format!("held-{job}");
    let caption = format!("What held the {} that were used after the last run", size(all));
    html! {
        svg viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-labelledby=(name) {
            title id=(name) { (caption) "; the table below has the same numbers" }
            @for (one, x) in held.iter().zip(places) {
                rect class=(colour(one)) x=(coordinate(x)) y="0" width=(coordinate(part(one.bytes) * WIDTH)) height="22" {
                    title { (held_by(one)) ": " (size(one.bytes)) }
                }
            }
        }
        (table(&caption, &[("What holds it", ""), ("Bytes", "number"), ("Share", "number")], html! {
            @for one in held {
                tr {
                    th scope="row" {
                        svg class="k" viewBox="0 0 10 10" aria-hidden="true" { rect class=(colour(one)) width="10" height="10" {} }
                        (held_by(one))
                    }
                    td class="number" { (size(one.bytes)) }
                    td class="number" { (format!("{:.1} %", part(one.bytes) * 100.0)) }
                }
            }
        }))
    }
}

/// Returns the class of what holds bytes, which has the same colour everywhere.
fn colour(held: &Held) -> String {
    format!("h{}", held.by as u8)
}

/// Shows the last runs of jobs.
pub(super) fn runs(runs: &[JobRunRecord], now: DateTime<Utc>) -> Markup {
    if runs.is_empty() {
        return html! { p { "No job has run yet." } };
    }
    let columns = [
        ("Began (UTC)", ""),
        ("Job", ""),
        ("Because of", ""),
        ("Result", ""),
        ("Removed", "number"),
        ("Left alone", "number"),
        ("Freed", "number"),
        ("Missing", "number"),
    ];
    table(
        "The last runs, newest first",
        &columns,
        html! {
            @for run in runs {
                tr {
                    td { (minute(run.started_at)) br; span class="soft" { (age(run.started_at, now)) } }
                    td { (run.job) @if run.mode == Mode::Observe { br; span class="soft" { "observes" } } }
                    td { (run.cause) }
                    td {
                        (run.outcome.map_or("not ended".to_owned(), |outcome| outcome.to_string()))
                        @for text in run.report.problem.iter().chain(&run.report.notes) {
                            br; span class="soft" { (plain(text)) }
                        }
                    }
                    td class="number" { (run.report.removed) }
                    td class="number" { (run.report.spared) }
                    td class="number" { (size(run.report.freed_bytes)) }
                    td class="number" { @if run.report.goal_bytes.is_some() { (size(run.report.unmet_bytes)) } @else { (NOTHING) } }
                }
            }
        },
    )
}

/// Shows what the last run decided.
pub(super) fn decisions(decided: Option<&Decided>, now: DateTime<Utc>) -> Markup {
    let Some(Decided { job, started_at, decisions }) = decided else {
        return html! { p { "Nothing has been removed from this home yet." } };
    };
    let left = decisions.total.saturating_sub(decisions.decisions.len() as u64);
    let by = job.as_ref().map_or("Somebody's run".to_owned(), |job| format!("Job {}", plain(job)));
    let mut caption = format!("{by}, {} UTC, {}", minute(*started_at), age(*started_at, now));
    if left > 0 {
        caption.push_str(&format!("; {left} more decisions are left out"));
    }
    if decisions.decisions.is_empty() {
        return html! { p { (caption) ": it decided about no image." } };
    }
    table(
        &caption,
        &[("Image", ""), ("Result", ""), ("Freed", "number"), ("Why", "")],
        html! {
            @for decision in &decisions.decisions {
                tr {
                    th scope="row" { (plain(&decision.reference)) }
                    td { (word(decision.verdict)) }
                    td class="number" { @if decision.verdict == Verdict::Removed { (size(decision.bytes)) } @else { (NOTHING) } }
                    td { (plain(&decision.reason)) }
                }
            }
        },
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Removed => "removed",
        Verdict::Spared => "left alone",
        Verdict::Kept => "kept",
    }
}
