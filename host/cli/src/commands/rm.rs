use larder::MicrosandboxError;

use super::Failures;
use super::apply::show_ask_apply;
use super::consent::Consent;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render;

/// Remove images
///
/// Layers and files are deleted with the last image that needs them. An image that a sandbox or a snapshot uses, or that is
/// pinned, is not removed. With `--force` it loses its reference and its pin, and its data stays while it is used.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder rm python:3.11
  larder rm python:3.11 docker.io/acme/app:v1 --yes")]
pub(crate) struct Rm {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Also remove references that are in use or pinned
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let mut failures = Failures::new(context);
        let planned = local.plan_remove(&self.references, self.force).await?;
        for error in planned.refused {
            let in_use = matches!(error, MicrosandboxError::ImageInUse(_));
            let failure = Failure::from(error);
            let hint = "`--force` takes the reference and its pin away; data in use stays";
            failures.add(&if in_use { failure.with_hint(hint) } else { failure });
        }
        if planned.plan.is_empty() {
            return Ok(failures.status());
        }
        let report = show_ask_apply(&local, &planned.plan, None, self.consent, context).await?;
        render::report::print(&report, context)?;
        for image in &report.spared {
            let text = format!("`{}` stays: {}", image.reference, image.reason);
            failures.add(&MicrosandboxError::ImageInUse(text).into());
        }
        for reference in report.gone {
            failures.add(&MicrosandboxError::ImageNotFound(reference).into());
        }
        Ok(failures.status())
    }
}
