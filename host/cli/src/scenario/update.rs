//! What came of a run, written into the file.
//!
//! Only scenarios that differ are touched, and in them only `expect`, `fails` and `says`: entries for images that are still
//! decided about keep their comments and their form. A file in which nothing differs stays as it is, byte for byte.

use std::collections::HashMap;

use larder::policy::Decision;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::decisions::{Expected, Failed, Outcome, word};
use super::{Suite, file};
use crate::exit::Failure;

/// The text of the file with these outcomes, one for each of its scenarios; none where they are what it expects.
pub(crate) fn update(suite: &Suite, seen: &[Outcome]) -> Result<Option<String>, Failure> {
    let unable = |problem: &str| Failure::usage(format!("{}: {problem}", suite.path.display()));
    let differs = suite.scenarios.iter().zip(seen).any(|(scenario, seen)| !scenario.is_met_by(seen));
    if !differs {
        return Ok(None);
    }
    let mut document: DocumentMut =
        suite.text.parse().map_err(|error: toml_edit::TomlError| unable(error.message()))?;
    let tables = document.get_mut("scenario").and_then(Item::as_array_of_tables_mut);
    let tables =
        tables.ok_or_else(|| unable("only a file that writes its scenarios as `[[scenario]]` is updated"))?;
    for ((table, scenario), seen) in tables.iter_mut().zip(&suite.scenarios).zip(seen) {
        if !scenario.is_met_by(seen) {
            write(table, seen);
        }
    }
    let text = document.to_string();
    // Whatever was in the file, nothing is written that does not say what was seen.
    let written = file::read(&suite.path, text.clone())?;
    let mut pairs = written.scenarios.iter().zip(seen);
    let same =
        written.scenarios.len() == seen.len() && pairs.all(|(scenario, seen)| scenario.is_met_by(seen));
    if same { Ok(Some(text)) } else { Err(unable("its form is too unusual to be updated: write it by hand")) }
}

fn write(scenario: &mut Table, seen: &Outcome) {
    match seen {
        Outcome::Fails(Failed { kind, says }) => {
            scenario.remove("expect");
            set(scenario, "fails", kind.word().into());
            match says {
                Some(says) if kind.is_of_policy() => set(scenario, "says", says.as_str().into()),
                _ => _ = scenario.remove("says"),
            }
        }
        Outcome::Decisions(decisions) => {
            scenario.remove("fails");
            scenario.remove("says");
            let item = match scenario.remove("expect") {
                Some(Item::Value(Value::Array(array))) => Item::Value(Value::Array(inline(array, decisions))),
                Some(Item::ArrayOfTables(tables)) => blocks(tables, decisions),
                _ => blocks(ArrayOfTables::new(), decisions),
            };
            scenario.insert("expect", item);
        }
    }
}

/// Decisions as `[[scenario.expect]]`; none at all as an empty list.
fn blocks(before: ArrayOfTables, decisions: &[Expected]) -> Item {
    if decisions.is_empty() {
        return value(Array::new());
    }
    let mut known: HashMap<String, Table> =
        before.into_iter().filter_map(|table| Some((reference(&table)?, table))).collect();
    let tables = decisions.iter().map(|decision| {
        let mut table = known.remove(&decision.reference).unwrap_or_default();
        // Where it stood is no place for it: the order of the plan is.
        table.set_position(None);
        fill(&mut table, decision);
        table
    });
    Item::ArrayOfTables(tables.collect())
}

/// Decisions as a list of tables on one line each.
fn inline(before: Array, decisions: &[Expected]) -> Array {
    let mut known: HashMap<String, Value> =
        before.into_iter().filter_map(|entry| Some((reference(entry.as_inline_table()?)?, entry))).collect();
    let mut array = Array::new();
    for decision in decisions {
        let mut entry = known.remove(&decision.reference).unwrap_or_else(|| {
            let mut fresh = Value::InlineTable(InlineTable::new());
            fresh.decor_mut().set_prefix("\n    ");
            fresh
        });
        if let Some(table) = entry.as_inline_table_mut() {
            fill(table, decision);
        }
        array.push_formatted(entry);
    }
    array.set_trailing_comma(!decisions.is_empty());
    array.set_trailing(if decisions.is_empty() { "" } else { "\n" });
    array
}

fn reference(table: &dyn TableLike) -> Option<String> {
    Some(table.get("reference")?.as_str()?.to_owned())
}

fn fill(table: &mut dyn TableLike, expected: &Expected) {
    let decision = match expected.decision {
        Decision::Keep => "keep",
        Decision::Remove => "remove",
    };
    // An entry without a reason takes any.
    let takes_any = table.contains_key("reference") && !table.contains_key("reason");
    set(table, "decision", decision.into());
    set(table, "reference", expected.reference.as_str().into());
    if let Some(reason) = expected.reason.as_ref().filter(|_| !takes_any) {
        set(table, "reason", reason.as_str().into());
    }
    match table.get("force").and_then(Item::as_bool) {
        Some(force) if force == expected.force => {}
        None if !expected.force => {}
        _ if expected.force => set(table, "force", true.into()),
        _ => _ = table.remove("force"),
    }
    match expected.denied {
        Some(right) => set(table, "denied", word(right).into()),
        None => _ = table.remove("denied"),
    }
}

/// Sets a key, which keeps its place and comments where it was there.
fn set(table: &mut dyn TableLike, key: &str, mut new: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) if old.as_str().is_some() && old.as_str() == new.as_str() => {}
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => _ = table.insert(key, Item::Value(new)),
    }
}
