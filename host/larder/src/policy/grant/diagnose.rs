//! What is wrong with a grant, by line and key.

use crate::policy::PolicyError;

/// The keys of each table, for suggestions; a test keeps them equal to the fields.
pub(super) const KEYS: [(&str, &[&str]); 4] = [
    ("", &["grant", "guard", "limits"]),
    (
        "grant",
        &["read", "inspect", "secrets", "remove", "force", "prune", "max-removals", "max-bytes", "max-share"],
    ),
    ("guard", &["protect", "min-age", "keep"]),
    (
        "limits",
        &[
            "time",
            "memory",
            "host-calls",
            "log",
            "fuel",
            "stack",
            "table-elements",
            "instances",
            "string",
            "list",
            "transfer",
            "reasons",
            "removals",
        ],
    ),
];

/// Makes an error that names line and key out of the parser's message and the place it gives.
pub(super) fn diagnose(
    text: &str,
    source_name: &str,
    message: &str,
    span: Option<std::ops::Range<usize>>,
) -> PolicyError {
    let before = span.as_ref().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let line_text = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let mut key = line_text.split(['=', '#']).next().unwrap_or_default().trim().to_owned();
    let mut suggestion = None;
    let mut problem = message.lines().next().unwrap_or_default().to_owned();
    if let Some(unknown) = problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        let unknown = unknown.to_owned();
        let header = before.unwrap_or_default().lines().map(str::trim).rfind(|line| line.starts_with('['));
        let table =
            header.map_or("", |header| header.trim_start_matches('[').split(']').next().unwrap_or_default());
        let table = if line_text.trim_start().starts_with('[') { "" } else { table.trim() };
        suggestion = suggest(table, &unknown);
        problem = match table {
            "" => "no such table in a grant; there are `[grant]`, `[guard]` and `[limits]`".to_owned(),
            _ => format!("no such key in `[{table}]`"),
        };
        key = unknown;
    }
    for (rust, words) in [
        ("u32", "a whole number of at most 4294967295"),
        ("u64", "a whole number"),
        ("a sequence", "a list of patterns such as `[\"docker.io/acme/**\"]`"),
    ] {
        problem = problem.replace(&format!("expected {rust}"), &format!("expected {words}"));
    }
    PolicyError::InvalidGrant { source_name: source_name.to_owned(), line, key, problem, suggestion }
}

/// The key that was probably meant: the closest in its table, or the same in another table.
fn suggest(table: &str, unknown: &str) -> Option<String> {
    let spelled = unknown.replace('_', "-").to_lowercase();
    let close = |keys: &[&'static str]| {
        let scored = keys.iter().map(|key| (strsim::jaro_winkler(key, &spelled), *key));
        scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
    };
    let own = KEYS.iter().find(|(name, _)| *name == table).and_then(|(_, keys)| close(keys));
    own.map(|key| format!("`{key}`")).or_else(|| {
        let (other, _) = KEYS[1..].iter().find(|(_, keys)| keys.contains(&spelled.as_str()))?;
        Some(format!("`{spelled}` in `[{other}]`"))
    })
}
