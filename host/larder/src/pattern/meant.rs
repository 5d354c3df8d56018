//! Guesses what a pattern that can match nothing was meant to be.

/// Returns the patterns that one which can match nothing may have been meant to be, the likeliest first. Each can match
/// something.
///
/// What people leave out is known from `docker` and from file names: the registry, `library/`, what lies below an
/// organisation, and that `*` stops at `/`.
pub(super) fn likely_meanings(text: &str, can_match: impl Fn(&String) -> bool) -> Vec<String> {
    match without_mark(text) {
        Some(expression) => of_another_syntax(expression, can_match),
        None => meanings(text, &can_match),
    }
}

/// The same for a text without the mark of another syntax.
fn meanings(text: &str, can_match: &impl Fn(&String) -> bool) -> Vec<String> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    if can_match(&text.to_owned()) {
        return vec![text.to_owned()];
    }
    let possible = |text: &str| -> Vec<String> { readings(text).into_iter().filter(can_match).collect() };
    let meanings = possible(text);
    let lowercase = text.to_lowercase();
    match meanings.is_empty() {
        false => meanings,
        true if can_match(&lowercase) => vec![lowercase],
        true => possible(&lowercase),
    }
}

/// Returns the patterns that may have been meant by a text of another syntax, a regular expression or a shell's pattern,
/// the likeliest first.
pub(super) fn of_another_syntax(text: &str, can_match: impl Fn(&String) -> bool) -> Vec<String> {
    if text.len() > super::MAX_CHARACTERS {
        return Vec::new();
    }
    let text = without_mark(text).unwrap_or(text).trim().trim_start_matches('^').trim_end_matches('$');
    let mut pattern = text.to_owned();
    for (theirs, ours) in [
        ("[^/]*", "*"),
        ("[^/]+", "*"),
        ("\\d+", "*"),
        ("\\w+", "*"),
        ("[0-9]+", "*"),
        (".*", "**"),
        (".+", "**"),
        ("\\", ""),
        ("?", "*"),
    ] {
        pattern = pattern.replace(theirs, ours);
    }
    if can_match(&pattern) { vec![pattern] } else { meanings(&pattern, &can_match) }
}

/// Returns a text without the mark of a regular expression. None if it has none.
fn without_mark(text: &str) -> Option<&str> {
    ["re:", "regex:", "regexp:", "~"].iter().find_map(|mark| text.strip_prefix(mark))
}

/// The same; these, too, may be able to match nothing.
fn readings(text: &str) -> Vec<String> {
    if text.starts_with([':', '@']) {
        return vec![format!("**{text}")];
    }
    if text == "latest" {
        return vec!["**:latest".to_owned()];
    }
    if text.starts_with("sha256:") {
        return vec![format!("**@{text}")];
    }
    let path = text.strip_prefix("index.docker.io/").or_else(|| text.strip_prefix("docker.io/"));
    let short = path.unwrap_or(text);
    if text.ends_with('/') {
        let first = short.split('/').next().unwrap_or_default();
        let has_registry = path.is_none() && (names_registry(first) || first.contains(':'));
        return vec![if has_registry { format!("{text}**") } else { format!("docker.io/{short}**") }];
    }
    if short.contains('/') {
        return vec![format!("docker.io/{short}")];
    }
    let (name, end) = short.split_at(short.find([':', '@']).unwrap_or(short.len()));
    let official = format!("docker.io/library/{short}");
    match (path.is_some(), name, end) {
        (false, "*", "") => vec!["**".to_owned()],
        (false, "*", _) => vec![format!("**{end}")],
        (true, "*", _) => vec![format!("docker.io/**{end}"), official],
        (false, ..) if names_registry(name) && (end.is_empty() || is_port(end)) => {
            vec![format!("{short}/**")]
        }
        (false, _, "") if name.starts_with('*') => {
            vec![format!("**:{short}"), official, format!("**/{short}")]
        }
        (false, ..) if name.contains('*') => vec![official, format!("**/{short}")],
        (false, _, "") => vec![official, format!("docker.io/{name}/**")],
        (true, _, "") => vec![format!("docker.io/{name}/**"), official],
        (false, ..) if is_port(end) => vec![official, format!("{short}/**")],
        (true, ..) if name.contains('*') => vec![official, format!("docker.io/**/{short}")],
        _ => vec![official],
    }
}

/// Returns whether a name without a path is that of a registry, of which everything may be meant.
fn names_registry(name: &str) -> bool {
    (name.contains('.') || name == "localhost") && !name.contains('*')
}

/// Returns whether what follows a name is more likely a port than a tag.
fn is_port(end: &str) -> bool {
    let digits = end.strip_prefix(':').unwrap_or_default();
    (4..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}
