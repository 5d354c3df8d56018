use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use larder_kit::{KitError, Language, PolicyName, scaffold};
use serde::Serialize;

use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Create a policy: a directory that builds and passes its scenarios at once
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy new demo --lang python && cd demo && larder policy build && larder policy test
  larder policy new demo --lang rust --dir policies/demo")]
pub(crate) struct New {
    /// The name of the policy: lower-case letters, digits and `-`
    name: PolicyName,
    /// The language of the policy
    #[arg(long, value_parser = PossibleValuesParser::new(Language::ALL.map(Language::as_str)).try_map(language))]
    lang: Language,
    /// The directory of the policy, which is new or empty [default: `./NAME`]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(super) fn language(text: String) -> Result<Language, KitError> {
    text.parse()
}

/// What was begun.
#[derive(Debug, Serialize)]
struct Begun<'a> {
    directory: &'a Path,
    language: &'static str,
    name: &'a str,
}

impl New {
    pub(crate) fn run(self, context: &Context) -> Result<Status, Failure> {
        let directory = self.dir.unwrap_or_else(|| PathBuf::from(self.name.as_str()));
        scaffold(&directory, &self.name, self.lang)?;
        if context.console.is_json() {
            let (name, language) = (self.name.as_str(), self.lang.as_str());
            context.console.json(&Begun { directory: &directory, language, name })?;
        } else {
            context.console.data(&format!(
                "made `{0}`; next: `cd {0}`, `larder policy build`, `larder policy test`; its README.md says more\n",
                directory.display(),
            ))?;
        }
        Ok(Status::Done)
    }
}
