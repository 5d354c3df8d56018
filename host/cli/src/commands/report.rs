use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use larder::job::{Jobs, PolicyName};
use larder::policy::Policy;

use super::job::FileArgument;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::output;
use crate::web::Measured;
use crate::web::page::{self, Content};

/// Write a page about the cache and its jobs: one HTML file, for a browser
///
/// It shows the file system and the bounds of jobs over the last two weeks, the cache by repository, jobs with their runs,
/// and what the last run decided and why. The page loads nothing and runs nothing. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder report -o larder.html
  larder report > larder.html")]
pub(crate) struct Report {
    /// The file to write, or `-` for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
    #[command(flatten)]
    file: FileArgument,
}

impl Report {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let to_file = self.output.as_os_str() != "-";
        if to_file {
            output::refuse_in_home(&self.output, &local)?;
            output::refuse_to_replace(&self.output, "a page", |text| text.starts_with("<!DOCTYPE html>"))?;
        }
        // It asks no policy.
        let none = Arc::new(HashMap::<PolicyName, Policy>::new());
        let read = self.file.read_if_there(&local)?;
        let jobs = read.map(|read| Jobs::new(local.clone(), read.file, none));
        let step = context.console.step("measuring the cache");
        let measured = Measured::now(&local).await.map(Arc::new).map_err(|error| error.to_string());
        let content = Content::read(&local, jobs.as_ref(), measured).await?;
        drop(step);
        let text = page::render(&content);
        if to_file {
            output::write(&self.output, &text)?;
        } else {
            context.console.data(&text)?;
        }
        Ok(Status::Done)
    }
}
