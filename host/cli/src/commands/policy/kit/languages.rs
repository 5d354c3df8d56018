use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use larder_kit::{Language, guide};
use serde::Serialize;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Explain how policies are built in each language
///
/// A policy has no clock, no files and no output. Shows what the runtime of each language does instead, and what the
/// language costs. The text is Markdown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy languages
  larder policy languages python")]
pub(crate) struct Languages {
    /// Only this language
    #[arg(value_name = "LANG", value_parser = PossibleValuesParser::new(Language::ALL.map(Language::as_str)).try_map(super::new::language))]
    language: Option<Language>,
}

/// The text of the guide.
#[derive(Debug, Serialize)]
struct Guide {
    language: Option<&'static str>,
    text: String,
}

impl Languages {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let text = guide(self.language);
        if context.console.is_json() {
            context.console.json(&Guide { language: self.language.map(Language::as_str), text })?;
        } else {
            context.console.data(&text)?;
        }
        Ok(Status::Done)
    }
}
