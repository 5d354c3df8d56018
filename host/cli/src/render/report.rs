//! The report of an applied plan.

use larder::plan::{Decision, ImageVerdict, Plan, PlanReport};

use super::size::size;
use super::table::{Align, Table};
use super::{count, plain};
use crate::cli::Context;
use crate::exit::Failure;

/// Prints a report: the whole report for programs, and its sums for people.
pub(crate) fn print(report: &PlanReport, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return console.json(report);
    }
    for problem in &report.problems {
        console.warn(&plain(problem));
    }
    let freed = size(report.report.bytes_reclaimed.unwrap_or_default());
    let mut sum = format!("removed {}, freed {freed}", count(report.removed.len(), "image"));
    if !report.spared.is_empty() {
        sum.push_str(&format!(", spared {}", report.spared.len()));
    }
    if !report.gone.is_empty() {
        sum.push_str(&format!(", {} gone already", report.gone.len()));
    }
    console.data(&format!("{sum}\n"))
}

/// Prints the spared images, for people. For programs they are in the report.
pub(crate) fn print_spared(report: &PlanReport, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return Ok(());
    }
    let mut table = Table::new([("SPARED", Align::Left), ("REASON", Align::Left)], console.width());
    for image in &report.spared {
        table.row([image.reference.clone(), image.reason.clone()]);
    }
    console.data(&table.render())
}

/// Returns the report of a plan with nothing left to do: the images that were removed before, and those that stay.
pub(crate) fn nothing_done(plan: &Plan, gone: Vec<String>) -> PlanReport {
    let kept =
        plan.entries.iter().filter(|entry| entry.decision == Decision::Keep).map(|entry| ImageVerdict {
            bytes: 0,
            manifest_digest: entry.manifest_digest.clone(),
            reason: entry.reason.clone(),
            reference: entry.reference.clone(),
        });
    PlanReport { gone, kept: kept.collect(), ..PlanReport::default() }
}
