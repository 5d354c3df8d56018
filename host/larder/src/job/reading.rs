//! Reads tables of TOML key by key, so that everything that is wrong is found at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::finding::{Finding, Findings, Mark, Severity};

/// The place of something in the text, in bytes.
pub(super) type Place = Range<usize>;

/// A file that is being read, with what was found wrong so far.
pub(super) struct Reader<'t> {
    text: &'t str,
    findings: Vec<Finding>,
}

/// A table that was read: its values, and where its keys are.
pub(super) struct Table<T> {
    pub(super) keys: T,
    places: HashMap<String, Place>,
    whole: Place,
    /// Set if it has a key that is unknown or wrong.
    pub(super) is_wrong: bool,
}

impl<T> Table<T> {
    /// Returns the place of a key, or of the table if it has no such key.
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.whole).clone()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, findings: Vec::new() }
    }

    /// Parses the file. What the parser cannot make sense of is found, and the rest is read.
    pub(super) fn document(&mut self) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let place = error.span().unwrap_or_default();
            self.error(&place, "", error.message().lines().collect::<Vec<_>>().join(": "), None);
        }
        table.into_inner()
    }

    pub(super) fn error(
        &mut self,
        place: &Place,
        key: &str,
        problem: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.find(Severity::Error, place, key, problem.into(), suggestion);
    }

    pub(super) fn warning(
        &mut self,
        place: &Place,
        key: &str,
        problem: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.find(Severity::Warning, place, key, problem.into(), suggestion);
    }

    fn find(
        &mut self,
        severity: Severity,
        place: &Place,
        key: &str,
        problem: String,
        suggestion: Option<String>,
    ) {
        let Mark { line, column, key } = self.mark(place, key.to_owned());
        self.findings.push(Finding { severity, line, column, key, problem, suggestion });
    }

    /// Returns line and column of a place.
    pub(super) fn mark(&self, place: &Place, key: String) -> Mark {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = 1 + before[line_start..].chars().count();
        Mark { line: 1 + before.matches('\n').count(), column, key }
    }

    /// Reads a table, each key by itself. A key that is wrong has its default.
    pub(super) fn table<T: DeserializeOwned + Default>(
        &mut self,
        path: &str,
        table: &DeTable<'t>,
        whole: Place,
    ) -> Table<T> {
        let mut right = DeTable::new();
        let mut places = HashMap::new();
        for (key, value) in table {
            places.insert(key.get_ref().to_string(), key.span());
            let mut one = DeTable::new();
            one.insert(key.clone(), value.clone());
            match from_table::<T>(one) {
                Ok(_) => drop(right.insert(key.clone(), value.clone())),
                Err(error) => self.refuse(path, key, value, &error),
            }
        }
        let is_wrong = right.len() < table.len();
        Table { keys: from_table(right).unwrap_or_default(), places, whole, is_wrong }
    }

    /// Finds a key that could not be read.
    fn refuse(
        &mut self,
        path: &str,
        key: &Spanned<Cow<'t, str>>,
        value: &Spanned<DeValue<'t>>,
        error: &Error,
    ) {
        let message = error.message().lines().next().unwrap_or_default();
        let name = key.get_ref();
        let path = join(path, name);
        let alternatives = || quoted(message.split_once("expected").map_or("", |(_, rest)| rest));
        if message.starts_with("unknown field ") {
            self.error(&key.span(), &path, "no such key", did_you_mean(name, &alternatives()));
            return;
        }
        if message.starts_with("unknown variant ") {
            let given = value.get_ref().as_str().unwrap_or_default();
            let names = alternatives();
            let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let problem = format!("`{given}` is none of {}", listed.join(", "));
            self.error(&value.span(), &path, problem, did_you_mean(given, &names));
            return;
        }
        let place = error.span().filter(|span| !span.is_empty()).unwrap_or_else(|| value.span());
        self.error(&place, &path, in_words(message), None);
    }

    /// Returns the table under a key, or finds that it is none.
    pub(super) fn table_of<'v>(
        &mut self,
        path: &str,
        value: &'v Spanned<DeValue<'t>>,
    ) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let problem = format!("it is {}, and has to be a table", a_type(value.get_ref()));
            self.error(&value.span(), path, problem, None);
        }
        table
    }

    /// Ends the reading, with what was found.
    pub(super) fn finish(self) -> Findings {
        self.findings.into_iter().collect()
    }
}

/// Joins the path of a table and a key.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn from_table<T: DeserializeOwned>(table: DeTable<'_>) -> Result<T, Error> {
    T::deserialize(Deserializer::from(Spanned::new(0..0, table)))
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the closest of some names as a suggestion, if one is close.
pub(super) fn did_you_mean<S: AsRef<str>>(given: &str, names: &[S]) -> Option<String> {
    let plain = |text: &str| text.replace('_', "-").to_lowercase();
    let spelled = plain(given);
    let scored =
        names.iter().map(|name| (strsim::jaro_winkler(&plain(name.as_ref()), &spelled), name.as_ref()));
    let best = scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!("did you mean `{}`?", best.1))
}

fn a_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Puts the names of Rust's types into words.
fn in_words(message: &str) -> String {
    let mut words = message.replace("invalid type: ", "");
    for (rust, plain) in [
        ("string \"", "text \""),
        ("expected a string", "expected a text in quotes"),
        ("expected a boolean", "expected true or false"),
        ("expected u32", "expected a whole number of at most 4294967295"),
        ("expected u64", "expected a whole number"),
        ("expected a sequence", "expected a list such as `[\"docker.io/acme/**\"]`"),
        ("expected a map", "expected a table"),
    ] {
        words = words.replace(rust, plain);
    }
    words
}
