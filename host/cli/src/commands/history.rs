use larder::policy::{RunRecord, RunState};

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, age, size};

/// Show the last runs, newest first
///
/// A run is on record if it removed something, or was to remove something and did not. Of a run whose process was killed,
/// the images that it had removed are on record, with the bytes that its plan expected to free.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder history
  larder history 3 --format json")]
pub(crate) struct History {
    /// The number of runs to show
    #[arg(default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let runs = context.open().await?.history(self.number).await?;
        if context.console.is_json() {
            context.console.json(&runs)?;
            return Ok(Status::Done);
        }
        context.console.data(&table(&runs, context))?;
        if runs.is_empty() {
            context.console.note("no run is on record: nothing was removed from this home yet");
        }
        Ok(Status::Done)
    }
}

/// Returns the bytes that a run freed. Of a run that has not ended, it is what its removals were expected to free.
fn freed(run: &RunRecord) -> String {
    let size = size::size(run.report.bytes_reclaimed.unwrap_or_default());
    if run.state == RunState::Ended { size } else { format!("about {size}") }
}

fn table(runs: &[RunRecord], context: &Context) -> String {
    let columns = [
        ("RUN", Align::Right),
        ("BEGAN", Align::Left),
        ("JOB", Align::Left),
        ("POLICY", Align::Left),
        ("REMOVED", Align::Right),
        ("SPARED", Align::Right),
        ("KEPT", Align::Right),
        ("FREED", Align::Right),
        ("PROBLEM", Align::Left),
    ];
    let mut table = Table::new(columns, context.console.width());
    for run in runs {
        let policy = run.policy.as_ref().map(|policy| format!("{} {}", policy.name, policy.version));
        table.row([
            run.id.to_string(),
            age::age(run.started_at, context.now()),
            run.job.clone().unwrap_or(NOTHING.to_owned()),
            policy.unwrap_or(NOTHING.to_owned()),
            run.removed.to_string(),
            run.spared.to_string(),
            run.kept.to_string(),
            freed(run),
            run.problem.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
