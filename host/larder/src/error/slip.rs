//! What is wrong with a file of TOML that a person wrote, by line and key.

use std::fmt;
use std::ops::Range;

/// The tables that a file may have, and the keys of each; the first is the file itself, and its keys are the tables.
pub(crate) struct Keys {
    /// Such as "a grant".
    pub(crate) what: &'static str,
    pub(crate) tables: &'static [(&'static str, &'static [&'static str])],
}

/// A slip in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slip {
    /// Counted from 1; absent where the file as a whole is wrong.
    pub(crate) line: Option<usize>,
    /// The key, as the file has it.
    pub(crate) key: String,
    pub(crate) problem: String,
    /// What was probably meant.
    pub(crate) suggestion: Option<String>,
}

impl Slip {
    /// Makes one of the parser's message and the place that it gives.
    pub(crate) fn find(text: &str, keys: &Keys, message: &str, span: Option<Range<usize>>) -> Self {
        let before = span.as_ref().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let line_text = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
        let mut key = line_text.split(['=', '#']).next().unwrap_or_default().trim().to_owned();
        let mut suggestion = None;
        let mut problem = message.lines().next().unwrap_or_default().to_owned();
        if let Some(unknown) = problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
        {
            let unknown = unknown.to_owned();
            let header =
                before.unwrap_or_default().lines().map(str::trim).rfind(|line| line.starts_with('['));
            let table = header
                .map_or("", |header| header.trim_start_matches('[').split(']').next().unwrap_or_default());
            let table = if line_text.trim_start().starts_with('[') { "" } else { table.trim() };
            suggestion = keys.suggest(table, &unknown);
            problem = match table {
                "" => format!("no such table in {}; {}", keys.what, keys.there_are()),
                _ => format!("no such key in `[{table}]`"),
            };
            key = unknown;
        }
        let patterns = "expected a list of patterns such as `[\"docker.io/acme/**\"]`";
        problem = in_words(&problem.replace("expected a sequence", patterns), "a table");
        Self { line, key, problem, suggestion }
    }
}

/// Returns a message of a parser without the names that only Rust has for what was expected and found. `object` is the
/// format's own name for a map, such as `a table`.
pub(crate) fn in_words(message: &str, object: &str) -> String {
    let mut text = message.to_owned();
    for name in ["expected struct ", "expected internally tagged enum ", "expected enum "] {
        while let Some((before, after)) = text.split_once(name) {
            let after = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            // How many fields that has is not to be known either.
            let after =
                match after.strip_prefix(" with ").map(|rest| rest.trim_start_matches(char::is_numeric)) {
                    Some(rest) => rest.trim_start_matches(" elements").trim_start_matches(" element"),
                    None => after,
                };
            text = format!("{before}expected {object}{after}");
        }
    }
    for (rust, words) in [
        ("expected a sequence", "expected a list"),
        ("expected a map", &*format!("expected {object}")),
        ("expected a boolean", "expected `true` or `false`"),
        ("expected path string", "expected a path"),
        ("expected u32", "expected a whole number of at most 4294967295"),
        ("expected u64", "expected a whole number"),
        ("expected i64", "expected a whole number"),
        ("invalid type: map", &*format!("invalid type: {object}")),
        ("invalid type: sequence", "invalid type: a list"),
        ("invalid type: unit", "invalid type: nothing"),
        ("invalid type: null", "invalid type: nothing"),
    ] {
        text = text.replace(rust, words);
    }
    text
}

impl Keys {
    /// The key that was probably meant: the closest in its table, or the same in another table.
    fn suggest(&self, table: &str, unknown: &str) -> Option<String> {
        let spelled = unknown.replace('_', "-").to_lowercase();
        let close = |keys: &[&'static str]| {
            let scored = keys.iter().map(|key| (strsim::jaro_winkler(key, &spelled), *key));
            scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
        };
        let own = self.tables.iter().find(|(name, _)| *name == table).and_then(|(_, keys)| close(keys));
        own.map(|key| format!("`{key}`")).or_else(|| {
            let others = self.tables.iter().filter(|(name, _)| !name.is_empty());
            let (other, _) = others.into_iter().find(|(_, keys)| keys.contains(&spelled.as_str()))?;
            Some(format!("`{spelled}` in `[{other}]`"))
        })
    }

    /// Names the tables.
    fn there_are(&self) -> String {
        let names: Vec<String> = self
            .tables
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, _)| format!("`[{name}]`"))
            .collect();
        match names.as_slice() {
            [] => "there are none".to_owned(),
            [only] => format!("there is {only}"),
            [first @ .., last] => format!("there are {} and {last}", first.join(", ")),
        }
    }
}

impl fmt::Display for Slip {
    /// Such as ``, line 2: `protct`: no such key in `[guard]`; did you mean `protect`?``, to follow the name of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": ")?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No message has a name of Rust's.
    #[test]
    fn words() {
        let table = [
            (
                "invalid type: integer `1`, expected struct Plan at line 1 column 1",
                "invalid type: integer `1`, expected an object at line 1 column 1",
            ),
            (
                "invalid length 0, expected struct Versioned with 1 element at line 1",
                "invalid length 0, expected an object at line 1",
            ),
            (
                "invalid type: sequence, expected u32",
                "invalid type: a list, expected a whole number of at most 4294967295",
            ),
            ("invalid type: map, expected a boolean", "invalid type: an object, expected `true` or `false`"),
        ];
        for (message, expected) in table {
            assert_eq!(in_words(message, "an object"), expected);
        }
    }
}
