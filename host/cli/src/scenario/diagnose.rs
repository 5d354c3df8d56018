//! What is wrong with a file of scenarios: the file, the line, the key, and what was probably meant.

use std::ops::Range;
use std::path::Path;

use crate::exit::Failure;

/// An error at a place in a file.
pub(super) fn at(path: &Path, text: &str, span: Range<usize>, key: &str, problem: &str) -> Failure {
    located(path, Some(line(text, span.start)), key, problem)
}

fn located(path: &Path, line: Option<usize>, key: &str, problem: &str) -> Failure {
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    let key = if key.is_empty() { String::new() } else { format!("`{key}`: ") };
    Failure::usage(format!("{}{line}: {key}{problem}", path.display()))
}

/// The line of a place, counted from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1)
}

/// What the parser found.
pub(super) fn parser(
    path: &Path,
    text: &str,
    error: &serde_path_to_error::Error<toml::de::Error>,
) -> Failure {
    // A value whose place in the file is kept counts as a field of its own.
    let place = error.path().to_string().replace(".$__serde_spanned_private_value", "");
    let inner = error.inner();
    let line = inner.span().map(|span| line(text, span.start));
    let message = inner.message().lines().next().unwrap_or_default();
    if let Some((unknown, known)) = unknown(message, "unknown field `") {
        let problem = format!("no such key {}{}", table(&place), suggestion(&unknown, &known));
        return located(path, line, &unknown, &problem);
    }
    if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return located(path, line, missing, &format!("it is missing {}", table(&place)));
    }
    let mut problem = message.to_owned();
    for (rust, words) in [
        ("a sequence", "a list"),
        ("a map", "a table"),
        ("usize", "a whole number"),
        ("u32", "a whole number of at most 4294967295"),
        ("u64", "a whole number"),
        ("a boolean", "`true` or `false`"),
    ] {
        problem = problem.replace(&format!("expected {rust}"), &format!("expected {words}"));
    }
    if let Some((before, _)) = problem.split_once("expected struct ") {
        problem = format!("{before}expected a table");
    }
    if let Some((unknown, known)) = unknown(message, "unknown variant `") {
        problem.push_str(&suggestion(&unknown, &known));
    }
    located(path, line, key(&place), &problem)
}

/// The last key on the way to a place, such as `created` of `scenario[0].image[1].created`.
fn key(place: &str) -> &str {
    let last = place.rsplit('.').next().unwrap_or_default();
    let key = last.split('[').next().unwrap_or_default();
    if key == "?" { "" } else { key }
}

/// The table at a place, as a file writes it.
fn table(place: &str) -> String {
    let keys: Vec<&str> = place.split('.').map(|part| part.split('[').next().unwrap_or_default()).collect();
    match place {
        "." | "?" | "" => "at the top of a file of scenarios".to_owned(),
        _ if place.ends_with(']') => format!("in `[[{}]]`", keys.join(".")),
        _ => format!("in `[{}]`", keys.join(".")),
    }
}

/// The unknown word and the known ones of a message that begins so.
fn unknown(message: &str, beginning: &str) -> Option<(String, Vec<String>)> {
    let mut words = message.strip_prefix(beginning)?.split('`');
    let unknown = words.next()?.to_owned();
    let known = words.skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown, known))
}

fn suggestion(unknown: &str, known: &[String]) -> String {
    close(unknown, known.iter().map(String::as_str))
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

/// The word that was probably meant.
pub(super) fn close<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let spelled = unknown.replace('_', "-").to_lowercase();
    let scored = known.map(|known| (strsim::jaro_winkler(known, &spelled), known));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
