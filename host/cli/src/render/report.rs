//! The report of an applied plan.

use larder::plan::{PlanReport, RecoveredFiles};

use super::plan::lacking_of as lacking;
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
    if !report.left.is_empty() {
        sum.push_str(&format!(", left {}", report.left.len()));
    }
    if !report.spared.is_empty() {
        sum.push_str(&format!(", spared {}", report.spared.len()));
    }
    if !report.gone.is_empty() {
        sum.push_str(&format!(", {} gone already", report.gone.len()));
    }
    let lacking =
        report.goal_bytes.and_then(|goal| lacking(goal, report.report.bytes_reclaimed.unwrap_or_default()));
    for more in [recovered(report), lacking].into_iter().flatten() {
        sum.push_str(&format!("; {more}"));
    }
    console.data(&format!("{sum}\n"))
}

/// Says which files of earlier removals went first.
pub(crate) fn recovered(report: &PlanReport) -> Option<String> {
    let RecoveredFiles { bytes, files } = report.recovered;
    let files = usize::try_from(files).ok().filter(|files| *files > 0)?;
    let text = format!(
        "an earlier removal that was cut short was finished: {}, {}",
        count(files, "file"),
        size(bytes)
    );
    Some(text)
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
