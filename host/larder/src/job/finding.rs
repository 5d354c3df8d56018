//! What is wrong with a job file.

use std::fmt;

use serde::Serialize;

/// The weight of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and probably does not do what is wanted.
    Warning,
}

/// One thing that is wrong with a job file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its weight: an error stops the file from being used.
    pub severity: Severity,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The path of the key, such as `jobs.nightly.schedule`; empty for the file as a whole.
    pub key: String,
    /// The problem, in one sentence without its end.
    pub problem: String,
    /// A better text, or something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Writes it in one line, to follow the name of the file: ``:3:1: `jobs.nightly.polcy`: no such key; did you mean `policy`?``
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}:{}: ", self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// The place of a key in the file, for findings about what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) key: String,
}

impl Mark {
    pub(super) fn error(&self, problem: String, suggestion: Option<String>) -> Finding {
        let Self { line, column, key } = self.clone();
        Finding { severity: Severity::Error, line, column, key, problem, suggestion }
    }
}

/// Everything that is wrong with a job file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings(pub Vec<Finding>);

impl FromIterator<Finding> for Findings {
    /// Puts findings into the order of the file, each once.
    fn from_iter<I: IntoIterator<Item = Finding>>(findings: I) -> Self {
        let mut findings: Vec<Finding> = findings.into_iter().collect();
        findings.sort_by_key(|finding| (finding.line, finding.column));
        findings.dedup();
        Self(findings)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let line = finding.to_string();
            write!(f, "{}{}", if index == 0 { "" } else { "\n" }, line.trim_start_matches(':'))?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}
