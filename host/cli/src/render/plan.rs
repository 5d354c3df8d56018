//! A plan as people read it.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use larder::home::HomeIdentity;
use larder::maintenance::UnownedKind;
use larder::plan::{
    Decision, Denial, LogLevel, Maker, PatternList, Plan, PlanEntry, Right, Uncollected, UnmatchedPattern,
    UnreachedKind,
};
use larder::reference::Reference;

use super::age::age;
use super::size::size;
use super::table::{Align, Table};
use super::{NOTHING, count, plain};
use crate::console::{Console, Verbosity};

/// So many sums of denials are shown; a plan has every denial.
const GROUPS_SHOWN: usize = 10;

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

/// Says by how much a plan misses its goal.
pub(crate) fn lacking(plan: &Plan) -> Option<String> {
    lacking_of(plan.goal?.as_bytes(), plan.bytes)
}

/// Says by how much these freed bytes miss a goal.
pub(crate) fn lacking_of(goal: u64, freed: u64) -> Option<String> {
    let lacking = goal.checked_sub(freed).filter(|lacking| *lacking > 0)?;
    Some(format!("{} of the goal of {} are lacking", size(lacking), size(goal)))
}

fn sum(plan: &Plan) -> String {
    let lacking = lacking(plan).map(|text| format!("; {text}")).unwrap_or_default();
    if plan.is_empty() {
        return format!("nothing to remove; {} stay{lacking}\n", count(plan.entries.len(), "image"));
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
    format!("{} {verb}{stays}; this frees {}{lacking}\n", goes.join(" and "), size(plan.bytes))
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
    uncollected(plan, console);
    patterns(plan, console);
    denials(plan, console);
}

/// Tells which files that nothing owns are left, and why.
pub(crate) fn uncollected(plan: &Plan, console: &Console) {
    if let Some(Uncollected { bytes, files, reason }) = &plan.uncollected {
        let files = count(usize::try_from(*files).unwrap_or(usize::MAX), "file");
        console.warn(&format!(
            "left {files} of {} that nothing of this home owns: {}",
            size(*bytes),
            plain(reason)
        ));
        console.note("if no other home uses that cache, `larder verify --claim-cache` makes it this home's");
    }
}

/// Which patterns matched nothing. Programs find them in the data.
pub(crate) fn patterns(plan: &Plan, console: &Console) {
    if console.is_json() {
        return;
    }
    for UnmatchedPattern { list, meant, pattern } in &plan.unmatched {
        let (list, table) = match list {
            PatternList::Protect => ("protect", "guard"),
            PatternList::Read => ("read", "grant"),
            PatternList::Inspect => ("inspect", "grant"),
            PatternList::Remove => ("remove", "grant"),
        };
        // People write `ghcr.io/acme` for everything of acme's.
        let is_repository = pattern.as_str().parse::<Reference>();
        let is_repository = is_repository.is_ok_and(|reference| reference.repository() == pattern.as_str());
        let more = match meant {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None if is_repository => {
                format!(": it is one repository; `{pattern}/**` is what lies below it")
            }
            None => String::new(),
        };
        console.warn(&format!("`{pattern}` in `{list}` of `[{table}]` matches no image of this home{more}"));
    }
}

/// What the policy was denied, summed up by right and repository. Programs find each denial in the data.
fn denials(plan: &Plan, console: &Console) {
    if console.is_json() {
        return;
    }
    let mut groups: BTreeMap<(Right, String), Vec<&Denial>> = BTreeMap::new();
    for denial in &plan.denials {
        let repository = denial.reference.as_deref().map(repository).unwrap_or_default();
        groups.entry((denial.right, repository)).or_default().push(denial);
    }
    let hidden = groups.len().saturating_sub(GROUPS_SHOWN);
    for ((right, repository), denials) in groups.into_iter().take(GROUPS_SHOWN) {
        let text = match denials.as_slice() {
            [] => continue,
            [Denial { message, allowed_by, .. }] => {
                format!("denied: {}; allowed by: {}", plain(message), plain(allowed_by))
            }
            [first, ..] => {
                let allowed_by = match word(right) {
                    Some((_, Some(key))) => format!("`{key} = [\"{repository}\"]` in `[grant]`"),
                    _ => first.allowed_by.clone(),
                };
                let what = word(right).map_or("touch", |(verb, _)| verb);
                let images = count(denials.len(), "image");
                format!(
                    "denied: to {what} {images} of {}; allowed by: {}",
                    plain(&repository),
                    plain(&allowed_by)
                )
            }
        };
        // That the guard does its work is no reason to worry.
        if right == Right::Protected { console.detail(&text) } else { console.warn(&text) }
    }
    if hidden > 0 {
        console.warn(&format!("and {} more like these; the plan has every denial", hidden));
    }
}

/// What is done with a right, and the list in `[grant]` that has the images it is given for.
fn word(right: Right) -> Option<(&'static str, Option<&'static str>)> {
    match right {
        Right::Read => Some(("see", Some("read"))),
        Right::Inspect => Some(("inspect", Some("inspect"))),
        Right::Remove => Some(("remove", Some("remove"))),
        Right::Force => Some(("force the removal of", None)),
        Right::Protected => Some(("remove", None)),
        Right::Prune | Right::Budget => None,
    }
}

/// The repository of an image; the text itself where it is no reference.
fn repository(reference: &str) -> String {
    let parsed = reference.parse::<Reference>();
    parsed.map_or_else(|_| reference.to_owned(), |parsed| parsed.repository().to_owned())
}

/// Returns what to say of a plan that was made later than it is now, by more than clocks differ.
pub(crate) fn from_the_future(plan: &Plan, now: DateTime<Utc>) -> Option<String> {
    let made = plan.created_at;
    (made > now + CLOCK_SKEW).then(|| {
        let [made, now] = [made, now].map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
        format!(
            "the plan says that it was made at {made}, and it is {now} here: one of the two clocks is wrong"
        )
    })
}

/// Returns what to say of a plan that was made of this home at another place: the home was moved, is mounted elsewhere, or
/// is a copy.
pub(crate) fn from_elsewhere(plan: &Plan, home: &HomeIdentity) -> Option<String> {
    let made_for =
        plan.home.as_ref().filter(|made_for| made_for.names(home) && made_for.path != home.path)?;
    Some(format!(
        "the plan was made for the home at `{}`, and this one is at `{}`: it was moved, or is a copy",
        plain(&made_for.path),
        plain(&home.path)
    ))
}

/// The difference of two machines' clocks that is no reason for a warning.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// When a plan was made, by what, and for which home.
pub(crate) fn origin(plan: &Plan, now: DateTime<Utc>) -> String {
    let maker = match (&plan.policy, plan.made_by) {
        (Some(policy), _) => format!("{} {}", plain(&policy.name), plain(&policy.version)),
        (None, Maker::Removal) => "a removal by name".to_owned(),
        (None, Maker::Repair) => "a repair".to_owned(),
        (None, Maker::Policy | Maker::Prune) => "a prune".to_owned(),
    };
    let home = plan.home.as_ref().map(|home| format!(" for `{}`", plain(&home.path))).unwrap_or_default();
    let goal = plan.goal.map(|goal| format!(", to free {goal:#}")).unwrap_or_default();
    format!("this plan was made {} by {maker}{home}{goal}", age(plan.created_at, now))
}
