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
        for (rust, words) in [
            ("u32", "a whole number of at most 4294967295"),
            ("u64", "a whole number"),
            ("a sequence", "a list of patterns such as `[\"docker.io/acme/**\"]`"),
        ] {
            problem = problem.replace(&format!("expected {rust}"), &format!("expected {words}"));
        }
        Self { line, key, problem, suggestion }
    }
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
