use larder::job::{Mode, Trigger};
use serde::Serialize;

use super::FileArgument;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::job;
use crate::render::table::{Align, Table};

/// List the jobs of the file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job list
  larder job list --format json")]
pub(crate) struct List {
    #[command(flatten)]
    file: FileArgument,
}

/// A job, as programs get it.
#[derive(Debug, Serialize)]
struct Listed {
    job: String,
    mode: Mode,
    when: String,
    policies: Vec<String>,
    /// The next time that it is due, RFC 3339, of a job with a schedule.
    next_at: Option<String>,
}

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let read = self.file.read(&local)?;
        let listed: Vec<Listed> = read
            .file
            .jobs
            .iter()
            .map(|job| Listed {
                job: job.name.to_string(),
                mode: job.mode,
                when: job::when(&job.trigger),
                policies: job.steps.iter().map(|step| step.policy.to_string()).collect(),
                next_at: match &job.trigger {
                    Trigger::Schedule { schedule, .. } => {
                        schedule.next_after(context.now()).map(|next| schedule.local(next))
                    }
                    Trigger::Pressure(_) => None,
                },
            })
            .collect();
        if context.console.is_json() {
            context.console.json(&listed)?;
            return Ok(Status::Done);
        }
        let columns = ["JOB", "WHEN", "NEXT", "MODE", "POLICIES"].map(|name| (name, Align::Left));
        let mut table = Table::new(columns, context.console.width());
        for Listed { job, mode, when, policies, next_at } in listed {
            table.row([job, when, next_at.unwrap_or_default(), mode.to_string(), policies.join(", ")]);
        }
        context.console.data(&table.render())?;
        Ok(Status::Done)
    }
}
