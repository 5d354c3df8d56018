//! What became of a plan.

use larder::plan::PlanReport;

use super::size::size;
use super::table::{Align, Table};
use super::{count, plain};
use crate::cli::Context;
use crate::exit::Failure;

/// Prints a report: for programs as it is, for people its sum.
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

/// Prints what was spared, for people; a report for programs says it.
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
