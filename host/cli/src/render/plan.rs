//! A plan as people read it.

use std::collections::BTreeMap;

use larder::maintenance::UnownedKind;
use larder::plan::{Decision, Denial, LogLevel, Plan, PlanEntry, Uncollected, UnreachedKind};

use super::size::size;
use super::table::{Align, Table};
use super::{NOTHING, count, plain};
use crate::console::{Console, Verbosity};

/// So many denials are shown; a plan has them all.
const DENIALS_SHOWN: usize = 10;

/// Why something goes that no image reaches.
const UNREACHED: &str = "no image needs it";

/// What a plan deletes: image by image with reason and bytes, then files, then the sum.
pub(crate) fn removals(plan: &Plan, console: &Console) -> String {
    let columns = [("FREES", Align::Right), ("IMAGE", Align::Left), ("REASON", Align::Left)];
    let mut table = Table::new(columns, console.width());
    for entry in plan.removals() {
        table.row([size(entry.bytes), entry.reference.clone(), reason(entry)]);
    }
    files(plan, console, |bytes, what, why| table.row([size(bytes), what, why]));
    table.render() + &sum(plan)
}

/// What becomes of every image: what goes and what stays, and why.
pub(crate) fn decisions(plan: &Plan, console: &Console) -> String {
    let columns =
        [("DECISION", Align::Left), ("FREES", Align::Right), ("IMAGE", Align::Left), ("REASON", Align::Left)];
    let mut table = Table::new(columns, console.width());
    for entry in &plan.entries {
        let decision = match entry.decision {
            Decision::Remove => "remove",
            Decision::Keep => "keep",
        };
        let frees = if entry.decision == Decision::Keep { NOTHING.to_owned() } else { size(entry.bytes) };
        table.row([decision.to_owned(), frees, entry.reference.clone(), reason(entry)]);
    }
    files(plan, console, |bytes, what, why| table.row(["remove".to_owned(), size(bytes), what, why]));
    table.render() + &sum(plan)
}

fn reason(entry: &PlanEntry) -> String {
    if entry.force { format!("{} (forced)", entry.reason) } else { entry.reason.clone() }
}

/// The rows and files that go with a plan besides images: one by one for whoever wants to know, else in groups.
fn files(plan: &Plan, console: &Console, mut row: impl FnMut(u64, String, String)) {
    if console.verbosity() >= Verbosity::Verbose {
        for unreached in &plan.unreached {
            row(unreached.bytes, plain(unreached.digest.as_str()), UNREACHED.to_owned());
        }
        for file in &plan.collect {
            row(file.bytes, file.path.display().to_string(), kind(file.kind).to_owned());
        }
        return;
    }
    for (kind, one) in [(UnreachedKind::Manifest, "manifest"), (UnreachedKind::Layer, "layer")] {
        let rows: Vec<u64> =
            plan.unreached.iter().filter(|row| row.kind == kind).map(|row| row.bytes).collect();
        if !rows.is_empty() {
            row(rows.iter().sum(), count(rows.len(), one), UNREACHED.to_owned());
        }
    }
    let mut groups: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for file in &plan.collect {
        let (number, bytes) = groups.entry(kind(file.kind)).or_default();
        *number += 1;
        *bytes = bytes.saturating_add(file.bytes);
    }
    for (kind, (number, bytes)) in groups {
        row(bytes, count(number, "file"), kind.to_owned());
    }
}

fn kind(kind: UnownedKind) -> &'static str {
    match kind {
        UnownedKind::Artifact => UNREACHED,
        UnownedKind::Blob => "downloaded, and no pull is using it",
        UnownedKind::FlatRef => "the record of a flat disk whose manifest is gone",
        UnownedKind::FlatBlob => "a flat disk that no record names",
        UnownedKind::Temporary => "work that was begun and not finished",
        _ => "nothing owns it",
    }
}

fn sum(plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("nothing to remove; {} stay\n", count(plan.entries.len(), "image"));
    }
    let images = plan.removals().count();
    let stay = plan.entries.len() - images;
    let others = plan.unreached.len() + plan.collect.len();
    let unreached = |kind| plan.unreached.iter().filter(|row| row.kind == kind).count();
    let goes = [
        (images, "image"),
        (unreached(UnreachedKind::Manifest), "manifest"),
        (unreached(UnreachedKind::Layer), "layer"),
        (plan.collect.len(), "file"),
    ];
    let goes: Vec<String> =
        goes.into_iter().filter(|(number, _)| *number > 0).map(|(number, one)| count(number, one)).collect();
    let verb = if images + others == 1 { "goes" } else { "go" };
    let stays = match stay {
        0 => String::new(),
        1 => ", 1 stays".to_owned(),
        _ => format!(", {stay} stay"),
    };
    format!("{} {verb}{stays}; this frees {}\n", goes.join(" and "), size(plan.bytes))
}

/// What the policy had to say, and what it was denied.
pub(crate) fn remarks(plan: &Plan, console: &Console) {
    for line in &plan.log {
        let text = format!("policy: {}", plain(&line.message));
        match line.level {
            LogLevel::Debug => console.debug(&text),
            LogLevel::Info => console.detail(&text),
            LogLevel::Warn | LogLevel::Error => console.warn(&text),
        }
    }
    if let Some(Uncollected { bytes, files, reason }) = &plan.uncollected {
        let files = count(usize::try_from(*files).unwrap_or(usize::MAX), "file");
        console.warn(&format!(
            "left {files} of {} that nothing of this home owns: {}",
            size(*bytes),
            plain(reason)
        ));
        console.note("if no other home uses that cache, `larder verify --claim-cache` makes it this home's");
    }
    for Denial { message, allowed_by, .. } in plan.denials.iter().take(DENIALS_SHOWN) {
        console.warn(&format!("denied: {}; allowed by: {}", plain(message), plain(allowed_by)));
    }
    if let Some(more) = plan.denials.len().checked_sub(DENIALS_SHOWN).filter(|&more| more > 0) {
        console.warn(&format!("{} more; the plan has them all", count(more, "denial")));
    }
}
