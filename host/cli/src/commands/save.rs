use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use larder::ImageArchiveFormat;
use larder::ingest::{ConfigOrigin, ImageSave, SaveReport, SavedLayer};

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::output;
use crate::progress::IngestProgress;
use crate::render::size::{rate, size};
use crate::render::{count, plain};

/// Save images to an archive
///
/// The archive has the layers and the config of each image, rebuilt from the cache: the digests of layers and manifests
/// differ from those that were pulled. Images that share layers share them in the archive. An existing file is replaced
/// when the archive is complete.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder save python:3.12 -o python.tar
  larder save acme/app:1 acme/app:2 -o app.tar --as oci
  larder save acme/app:1 -o app.tar && skopeo inspect docker-archive:app.tar")]
pub(crate) struct Save {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// The archive
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
    /// What `docker load` reads, or an OCI image layout
    #[arg(long = "as", value_name = "FORM", default_value = "docker")]
    form: Form,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// What `docker load` reads, with plain layers
    Docker,
    /// An OCI image layout as a tar file, with gzip layers
    Oci,
}

impl Save {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let Self { references, output, form } = self;
        let local = context.open().await?;
        output::refuse_in_home(&output, &local)?;
        let format = match form {
            Form::Docker => ImageArchiveFormat::Docker,
            Form::Oci => ImageArchiveFormat::Oci,
        };
        let console = &context.console;
        let progress = IngestProgress::new(console);
        let save = ImageSave::new(references, &output).format(format).progress(progress.clone());
        let begun = Instant::now();
        let saved = context.interruptible(save.run(&local)).await;
        progress.close();
        let report = saved?;
        for image in &report.images {
            let name = plain(&image.references.join(", "));
            if image.config == ConfigOrigin::Rebuilt {
                console.warn(&format!(
                    "the config of {name} was made of what the index knows: its original is missing or damaged"
                ));
            }
            if image.tags.is_empty() {
                console.warn(&format!("{name} has no tag: it is in the archive without a name"));
            }
        }
        if console.is_json() {
            console.json(&report)?;
        } else {
            console.data(&summary(&report, &output, begun.elapsed()))?;
        }
        Ok(Status::Done)
    }
}

fn summary(report: &SaveReport, output: &Path, time: Duration) -> String {
    let mut layers: Vec<&SavedLayer> = report.images.iter().flat_map(|image| &image.layers).collect();
    layers.sort_by(|a, b| a.blob_digest.cmp(&b.blob_digest));
    layers.dedup_by(|a, b| a.blob_digest == b.blob_digest);
    let sockets: u64 = layers.iter().map(|layer| layer.sockets_left_out).sum();
    let left_out = match usize::try_from(sockets).unwrap_or(usize::MAX) {
        0 => String::new(),
        sockets => format!(", without {}", count(sockets, "socket")),
    };
    format!(
        "saved {} with {} to {}: {}{left_out}, in {}\n",
        count(report.images.len(), "image"),
        count(layers.len(), "layer"),
        plain(&output.display().to_string()),
        size(report.bytes_written),
        rate(report.bytes_written, time),
    )
}
