use std::path::PathBuf;
use std::time::Instant;

use larder::ImageHandle;
use larder::ingest::ImageLoad;

use super::Failures;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::progress::IngestProgress;
use crate::render::size::known;
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, plain, short_digest};

/// Take images in from archives: of `docker save`, or OCI image layouts
///
/// An archive is a directory or a tar file, plain or compressed with gzip or zstd, and may hold several images. Every
/// digest is verified. Layers that the cache has are not converted again. Where an archive cannot be taken in, the cache
/// stays as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  docker save acme/app:1 -o app.tar && larder load app.tar
  larder load layout/ --tag acme/app:1")]
pub(crate) struct Load {
    /// Archives or directories
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// The name of the image, in the place of those in the archive; may be given several times
    #[arg(long = "tag", short, value_name = "REF")]
    tags: Vec<String>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        if self.files.len() > 1 && !self.tags.is_empty() {
            return Err(Failure::usage(
                "`--tag` names the image of one archive, and several are given".to_owned(),
            ));
        }
        let local = context.open_or_make().await?;
        let mut failures = Failures::new(context);
        let mut images = Vec::new();
        let begun = Instant::now();
        let progress = IngestProgress::new(&context.console);
        for file in self.files {
            let load = self.tags.iter().fold(ImageLoad::new(file), ImageLoad::tag);
            let loaded = context.interruptible(load.progress(progress.clone()).run(&local)).await;
            let interrupted = loaded.as_ref().is_err_and(Failure::is_interrupted);
            if interrupted {
                progress.close();
            } else {
                progress.clear();
            }
            images.extend(failures.catch(loaded).into_iter().flatten());
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
}

/// Shows images that came into the cache.
pub(super) fn show(images: &[ImageHandle], context: &Context) -> Result<(), Failure> {
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
