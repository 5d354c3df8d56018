use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use larder::policy::{Plan, PlanEntry};
use larder::snapshot::{CacheSnapshot, CostGraph, ImageRecord, Removal};
use larder::{Image, ImagePruneReport, LocalBackend, MicrosandboxError};

use super::consent::Consent;
use super::{Failures, look};
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render;

/// Remove images
///
/// Layers and files go with the last image that needs them. What a sandbox or snapshot uses, and what is pinned, is
/// not removed; with `--force` it loses its reference and its pin, and its data stays for as long as it is used.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder rm python:3.11
  larder rm python:3.11 docker.io/acme/app:v1 --yes")]
pub(crate) struct Rm {
    /// Which images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Remove references in use or pinned, too
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        self.consent.require(context)?;
        let local = context.open().await?;
        let mut failures = Failures::new(context);
        let (images, costs) =
            look(&local, |source: &mut dyn CacheSnapshot| Ok((source.images()?, source.costs()?))).await?;
        let chosen = self.choose(&local, &images, &mut failures).await?;
        if chosen.is_empty() {
            return Ok(failures.status());
        }
        let plan = self.plan(context, &images, costs, &chosen);
        self.consent.obtain(context, &plan)?;

        let step = context.console.step("removing");
        let result = local.apply(&plan).await;
        drop(step);
        let report = result?;
        render::report::print(&report, context)?;
        for image in &report.spared {
            let text = format!("`{}` is {}", image.reference, image.reason);
            failures.add(&MicrosandboxError::ImageInUse(text).into());
        }
        for reference in report.gone {
            failures.add(&MicrosandboxError::ImageNotFound(reference).into());
        }
        Ok(failures.status())
    }

    /// The images to remove, in the order in which they were named, by their place in the list.
    async fn choose(
        &self,
        local: &LocalBackend,
        images: &[ImageRecord],
        failures: &mut Failures<'_>,
    ) -> Result<Vec<usize>, Failure> {
        let places: HashMap<&str, usize> =
            images.iter().enumerate().map(|(index, image)| (image.handle.reference(), index)).collect();
        let mut chosen = Vec::new();
        let mut seen = HashSet::new();
        for reference in &self.references {
            let Some(handle) = failures.catch(Image::get_local(local, reference).await) else { continue };
            let Some(&index) = places.get(handle.reference()) else {
                failures.add(&MicrosandboxError::ImageNotFound(reference.clone()).into());
                continue;
            };
            if !seen.insert(index) {
                continue;
            }
            match obstacle(&images[index]) {
                Some(reason) if !self.force => {
                    let error =
                        MicrosandboxError::ImageInUse(format!("`{}` is {reason}", handle.reference()));
                    let hint = "`--force` takes the reference and its pin away; data in use stays";
                    failures.add(&Failure::from(error).with_hint(hint));
                }
                _ => chosen.push(index),
            }
        }
        Ok(chosen)
    }

    fn plan(&self, context: &Context, images: &[ImageRecord], costs: CostGraph, chosen: &[usize]) -> Plan {
        let mut removal = Removal::new(Arc::new(costs));
        let entries: Vec<PlanEntry> = chosen
            .iter()
            .map(|&index| {
                let image = &images[index];
                let reason = match obstacle(image) {
                    Some(obstacle) => format!("asked for by name, although {obstacle}"),
                    None => "asked for by name".to_owned(),
                };
                PlanEntry::remove(&image.handle, reason, removal.remove(index).bytes, self.force)
            })
            .collect();
        let freed = removal.freed();
        let report = ImagePruneReport {
            image_refs_removed: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            manifests_removed: freed.manifests,
            layers_removed: freed.layers,
            fsmeta_removed: freed.fsmeta,
            vmdk_removed: freed.vmdk,
            ..ImagePruneReport::default()
        };
        Plan::new(context.now(), entries, Vec::new(), report)
    }
}

/// What stands in the way of removing an image.
fn obstacle(image: &ImageRecord) -> Option<String> {
    let users = (!image.users.is_empty()).then(|| format!("used by {}", image.users));
    let pin = image.pinned.then(|| "pinned".to_owned());
    let obstacles: Vec<String> = users.into_iter().chain(pin).collect();
    (!obstacles.is_empty()).then(|| obstacles.join(" and "))
}
