use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use larder::ingest::{
    ConfigOrigin, GzipLevel, ImageSave, LayerCompression, SaveReport, SavedLayer, ZstdLevel,
};
use larder::{ImageArchiveFormat, MicrosandboxError};

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::output;
use crate::progress::IngestProgress;
use crate::render::size::{rate, size};
use crate::render::{count, plain};

/// Save images to an archive
///
/// Rebuilds the layers and the config of each image from the cache: the digests of layers and manifests differ from those that were
/// pulled, so signatures over manifests do not survive, and what loads the archive has another image. Images that share layers
/// share them in the archive. The same images give the same bytes.
///
/// Replaces an existing file when the archive is complete. Without `-o`, writes the archive to standard output and the report to
/// standard error; with `--format json`, that is an object `{"saved": …}`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder save python:3.12 -o python.tar
  larder save acme/app:1 acme/app:2 -o app.tar --as oci
  larder save acme/app:1 | ssh other larder load
  larder save acme/app:1 -o app.tar && skopeo inspect docker-archive:app.tar")]
pub(crate) struct Save {
    /// The references of the images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Write the archive to this file; `-` is standard output
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "-")]
    output: PathBuf,
    /// Choose the form of the archive
    #[arg(long = "as", value_name = "FORM", default_value = "docker")]
    form: Form,
    /// Choose the compression of the layers [default: none for docker, gzip for oci]
    #[arg(long, value_name = "KIND")]
    compression: Option<Compression>,
    /// Set the level: 1 to 9 for gzip [default: 6], 1 to 19 for zstd [default: 3]; higher is smaller and slower
    #[arg(long, value_name = "N")]
    compression_level: Option<u32>,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A `docker save` archive
    Docker,
    /// An OCI image layout in a tar file, which `docker load` reads as well
    Oci,
}

/// The compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Compression {
    /// Plain layers: the largest archive, in the least time
    None,
    /// What everything reads
    Gzip,
    /// Faster and smaller; Docker reads it from version 23 on
    Zstd,
}

impl Save {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let format = match self.form {
            Form::Docker => ImageArchiveFormat::Docker,
            Form::Oci => ImageArchiveFormat::Oci,
        };
        let compression = self.compression(format)?;
        let console = &context.console;
        let is_stdout = self.output.as_os_str() == "-";
        if is_stdout && console.writes_terminal() {
            let text = "standard output is a terminal, which shows no archive: name a file with `-o FILE`";
            return Err(Failure::usage(text.to_owned()));
        }
        let Self { references, output, .. } = self;
        let local = context.open().await?;
        let save = if is_stdout {
            ImageSave::to_writer(references, "standard output", stdout()?)
        } else {
            output::refuse_in_home(&output, &local)?;
            ImageSave::new(references, &output)
        };
        let progress = IngestProgress::new(console);
        let save = save.format(format).compression(compression).progress(progress.clone());
        let begun = Instant::now();
        let saved = context.interruptible(async { Ok::<_, Failure>(save.run(&local).await) }).await;
        progress.close();
        let report = match saved? {
            // Whoever reads has ended, and says why.
            Err(error) if is_stdout && is_broken_pipe(&error) => return Ok(Status::Failed),
            result => result?,
        };
        for image in &report.images {
            let name = image.references.join(", ");
            if image.config == ConfigOrigin::Rebuilt {
                console.warn(&format!(
                    "the config of {name} was made of what the index knows: its original is missing or damaged"
                ));
            }
            if image.tags.is_empty() {
                console.warn(&format!("{name} has no tag: it is in the archive without a name"));
            }
        }
        let name = if is_stdout { "standard output".to_owned() } else { output.display().to_string() };
        let summary = summary(&report, &name, begun.elapsed());
        match (is_stdout, console.is_json()) {
            (true, true) => console.record("saved", &report),
            (true, false) => console.note(&summary),
            (false, true) => console.json(&report)?,
            (false, false) => console.data(&(plain(&summary) + "\n"))?,
        }
        Ok(Status::Done)
    }

    fn compression(&self, format: ImageArchiveFormat) -> Result<LayerCompression, Failure> {
        let usual = match self.compression {
            None => LayerCompression::of(format),
            Some(Compression::None) => LayerCompression::None,
            Some(Compression::Gzip) => LayerCompression::Gzip(GzipLevel::DEFAULT),
            Some(Compression::Zstd) => LayerCompression::Zstd(ZstdLevel::DEFAULT),
        };
        let Some(level) = self.compression_level else { return Ok(usual) };
        let (compression, levels) = match usual {
            LayerCompression::Gzip(_) => {
                (GzipLevel::new(level).map(LayerCompression::Gzip), "gzip has levels from 1 to 9")
            }
            LayerCompression::Zstd(_) => {
                (ZstdLevel::new(level).map(LayerCompression::Zstd), "zstd has levels from 1 to 19")
            }
            _ => (None, "it is for gzip and zstd, and the layers are not compressed"),
        };
        compression.ok_or_else(|| Failure::usage(format!("`--compression-level {level}`: {levels}")))
    }
}

/// Returns standard output without the buffer of its own, which looks for lines.
fn stdout() -> Result<File, Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|error| Failure::failed("output", "could not write the archive", error))?;
    Ok(File::from(stdout))
}

fn is_broken_pipe(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

fn summary(report: &SaveReport, output: &str, time: Duration) -> String {
    let mut layers: Vec<&SavedLayer> = report.images.iter().flat_map(|image| &image.layers).collect();
    layers.sort_by(|a, b| a.blob_digest.cmp(&b.blob_digest));
    layers.dedup_by(|a, b| a.blob_digest == b.blob_digest);
    let left_out = |number: fn(&SavedLayer) -> u64, one: &str| {
        let number: u64 = layers.iter().copied().map(number).sum();
        (number > 0).then(|| count(usize::try_from(number).unwrap_or(usize::MAX), one))
    };
    let left_out = [
        left_out(|layer| layer.sockets_left_out, "socket"),
        left_out(|layer| layer.xattrs_left_out, "extended attribute"),
    ];
    let left_out: Vec<String> = left_out.into_iter().flatten().collect();
    let without =
        if left_out.is_empty() { String::new() } else { format!(", without {}", left_out.join(" and ")) };
    format!(
        "saved {} with {} to {output}: {}{without}, in {}",
        count(report.images.len(), "image"),
        count(layers.len(), "layer"),
        size(report.bytes_written),
        rate(report.bytes_written, time),
    )
}
