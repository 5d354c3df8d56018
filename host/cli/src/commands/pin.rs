use larder::maintenance::PinChange;
use larder::reference::Reference;
use serde::Serialize;

use super::Failures;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::plain;

/// Protect images: neither a prune nor a policy removes them
///
/// A pin is for the reference: it also protects an image that is pulled under it later. `larder ls` shows pins.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  larder pin docker.io/acme/base:stable")]
pub(crate) struct Pin {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
}

/// Remove pins
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  larder unpin docker.io/acme/base:stable")]
pub(crate) struct Unpin {
    /// The images, in the cache or not
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
}

/// The result for one pin.
#[derive(Debug, Serialize)]
struct Change {
    change: PinChange,
    pinned: bool,
    reference: String,
}

impl Pin {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let mut failures = Failures::new(context);
        let mut changes = Vec::new();
        for reference in self.references {
            let Some(change) = failures.catch(local.pin(&reference).await) else { continue };
            changes.push(Change { change, pinned: true, reference: normalized(reference) });
        }
        show(&changes, context)?;
        Ok(failures.status())
    }
}

impl Unpin {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let mut failures = Failures::new(context);
        let mut changes = Vec::new();
        for reference in self.references {
            let Some(change) = failures.catch(local.unpin(&reference).await) else { continue };
            changes.push(Change { change, pinned: false, reference: normalized(reference) });
        }
        show(&changes, context)?;
        Ok(failures.status())
    }
}

/// Returns the key of a pin: the normalized reference, or the unchanged text if it does not parse.
fn normalized(reference: String) -> String {
    reference.parse::<Reference>().map_or(reference, |parsed| parsed.to_string())
}

fn show(changes: &[Change], context: &Context) -> Result<(), Failure> {
    if context.console.is_json() {
        return context.console.json(&changes);
    }
    let lines: String = changes
        .iter()
        .map(|Change { change, pinned, reference }| {
            let what = match (pinned, change) {
                (true, PinChange::Changed) => "is pinned now",
                (true, PinChange::Unchanged) => "was pinned already",
                (false, PinChange::Changed) => "is no longer pinned",
                (false, PinChange::Unchanged) => "was not pinned",
            };
            format!("{} {what}\n", plain(reference))
        })
        .collect();
    context.console.data(&lines)
}
