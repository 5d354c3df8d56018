//! The languages that policies are built from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::KitError;

/// A language that policies are built from. As text, a word in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Rust, on `larder-guest`.
    Rust,
    /// C, on generated bindings.
    C,
    /// JavaScript, on QuickJS.
    JavaScript,
    /// Python, on CPython.
    Python,
    /// Go, on generated bindings.
    Go,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rust, Self::C, Self::JavaScript, Self::Python, Self::Go];

    /// Returns its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
        }
    }

    /// Returns its name on the command line and in `policy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Go => "go",
        }
    }
}

/// Returns how policies are built without WASI, in Markdown: for one language, or for all of them with what they cost.
pub fn guide(language: Option<Language>) -> String {
    let text = include_str!("../shared/languages.md");
    let lines = text.lines().filter(|line| !line.starts_with("<!--")).map(|line| format!("{line}\n"));
    let Some(language) = language else { return lines.collect() };
    let title = format!("## {}\n", language.title());
    let mut section = lines.skip_while(|line| *line != title).peekable();
    let first = section.next().unwrap_or_default();
    let rest: String = section.take_while(|line| !line.starts_with("## ")).collect();
    format!("{first}{}\n", rest.trim_end())
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = KitError;

    /// # Errors
    /// [`KitError::UnknownLanguage`], which names those that there are.
    fn from_str(text: &str) -> Result<Self, KitError> {
        let language = Self::ALL.into_iter().find(|language| language.as_str() == text);
        language.ok_or_else(|| KitError::UnknownLanguage { text: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide has a section for each language, which ends where the next one begins.
    #[test]
    fn guides() {
        let all = guide(None);
        for language in Language::ALL {
            let section = guide(Some(language));
            assert!(section.starts_with(&format!("## {}\n\n", language.title())), "{section}");
            assert!(section.contains("\n| wanted | what happens |\n"), "{section}");
            assert_eq!(section.matches("## ").count(), 1, "{section}");
            assert!(all.contains(&section));
        }
    }

    /// Each language is read as it is written, and another word is refused with those that there are.
    #[test]
    fn read_and_written() {
        for language in Language::ALL {
            assert_eq!(language.to_string().parse::<Language>().unwrap(), language);
        }
        assert_eq!(
            "perl".parse::<Language>().unwrap_err().to_string(),
            "`perl` is not a language that policies are built from: expected `rust`, `c`, `javascript`, `python` or `go`"
        );
    }
}
