//! The common part of commands that load or pull images: one after the other, with output for each and a summary.

use std::sync::Arc;
use std::time::Instant;

use larder::ImageHandle;
use larder::ingest::{Platform, Progress};

use super::Failures;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::progress::IngestProgress;
use crate::render::size::known;
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, plain, short_digest};

/// The platform of the images.
#[derive(Debug, clap::Args)]
pub(super) struct PlatformArgument {
    /// Take the images for this platform, instead of those for this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl PlatformArgument {
    pub(super) fn get(&self) -> Option<Platform> {
        self.platform.clone()
    }
}

/// Runs `work` for each of the sources. Continues after a failure, and stops at an interrupt.
pub(super) async fn take_in<S>(
    context: &Context,
    sources: Vec<S>,
    mut work: impl AsyncFnMut(S, Arc<dyn Progress>) -> Result<Vec<ImageHandle>, Failure>,
) -> Result<Status, Failure> {
    let mut failures = Failures::new(context);
    let mut images = Vec::new();
    let begun = Instant::now();
    let progress = IngestProgress::new(&context.console);
    for source in sources {
        let taken = context.interruptible(work(source, progress.clone())).await;
        let interrupted = taken.as_ref().is_err_and(Failure::is_interrupted);
        if interrupted {
            progress.close();
        } else {
            progress.clear();
        }
        images.extend(failures.catch(taken).into_iter().flatten());
        if interrupted {
            break;
        }
    }
    let summary = progress.summary(images.len(), begun.elapsed());
    show(&images, context)?;
    if !images.is_empty() {
        context.console.note(&summary);
    }
    Ok(failures.status())
}

/// Shows images that were added to the cache.
fn show(images: &[ImageHandle], context: &Context) -> Result<(), Failure> {
    if context.console.is_json() {
        return context.console.json(&images);
    }
    let columns = [
        ("REFERENCE", Align::Left),
        ("MANIFEST", Align::Left),
        ("PLATFORM", Align::Left),
        ("LAYERS", Align::Right),
        ("SIZE", Align::Right),
    ];
    let mut table = Table::new(columns, context.console.width());
    for image in images {
        let platform = [image.os(), image.architecture()].map(|part| part.unwrap_or(NOTHING));
        table.row([
            plain(image.reference()),
            image.manifest_digest().map_or(NOTHING.to_owned(), short_digest),
            plain(&platform.join("/")),
            image.layer_count().to_string(),
            known(image.size_bytes()),
        ]);
    }
    if images.is_empty() { Ok(()) } else { context.console.data(&table.render()) }
}
