//! Saving images of a cache as archives.
//!
//! A cache keeps no blobs: its layers are EROFS images. So an archive's layers are rebuilt from those (`layer`,
//! `tar`), compressed (`blocks`), with the config, the manifest and the archive around them (`config`, `archive`,
//! `documents`). [`ImageSave`] documents what is preserved.
//!
//! # Locking
//! The index is read in short transactions, and not changed. The files of an image are read under shared leases. These
//! are taken before another query checks that the index still has the image, so no process deletes the files
//! meanwhile. Images are saved one after the other, so descriptors are held for one image at a time.
//!
//! # Memory
//! Memory grows with the number of directories and hard-linked files of a layer, not with sizes. Compression has two blocks
//! of 1 MiB for each of at most eight threads, and a stream a few pieces of 256 KiB.
//!
//! # What survives a crash
//! An archive in a file appears complete and synced, by its final rename. Dropping the future ends the work soon and
//! removes the incomplete archive. A killed process leaves a temporary file `.larder-save-…` beside the output. What is
//! left of an archive in a stream lists no images.

mod archive;
mod blocks;
mod compression;
mod config;
mod documents;
mod error;
mod layer;
mod report;
mod saving;
mod source;
mod tar;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

pub use compression::{GzipLevel, LayerCompression, ZstdLevel};
pub use config::ConfigOrigin;
pub use error::SaveError;
pub use report::{SaveReport, SavedImage, SavedLayer, SavedManifest};

use super::progress::Progress;
use super::streams::Outgoing;
use crate::artifacts::unowned::TEMPORARY;
use crate::backend::LocalBackend;
use crate::catalog::journal::{self, NewUse, UseKind};
use crate::catalog::{CancelOnDrop, PooledReader, Writer, blocking, identity};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageArchiveFormat;
use archive::Archive;
use documents::Documents;
use saving::{Packing, Saving};
use source::Target;

/// The name of the work in errors.
const ACTION: &str = "save images";

/// A save of images to an archive: the work of [`Image::save`](crate::Image::save), with more settings.
///
/// # What is preserved
/// - The content of the layers: names, contents, modes, owners, times to the nanosecond, link structure, device
///   numbers, extended attributes, removals. Not preserved: sockets, for which tar has no form; extended attributes whose
///   names have a `=` or are not UTF-8, likewise; and access and change times, names of owners, and comments, which the
///   cache does not keep.
/// - The config, byte for byte if no diff ID changes, and otherwise everything in it except the diff IDs. If the cache
///   has lost the text, the fields that the index has. [`SavedImage::config`] states which case applies.
/// - The manifest's annotations, in an OCI archive.
/// - The reference, normalized. A reference with a digest and no tag names nothing in an archive, since its digest
///   would be that of another manifest.
///
/// A layer's diff ID stays the same only if its original archive has the same layout, member by member. The digests of
/// blobs and manifests change, so signatures over them do not apply to what is saved. An image that was loaded from an archive of Larder's and is saved again is the same,
/// byte for byte. So is an image that is saved twice.
///
/// ```no_run
/// # async fn example(local: &larder::LocalBackend) -> larder::MicrosandboxResult<()> {
/// use larder::ImageArchiveFormat;
/// use larder::ingest::ImageSave;
///
/// let report = ImageSave::new(["acme/app:1"], "app.tar").format(ImageArchiveFormat::Oci).run(local).await?;
/// println!("{} bytes", report.bytes_written);
/// # Ok(())
/// # }
/// ```
pub struct ImageSave {
    references: Vec<String>,
    output: Output,
    format: ImageArchiveFormat,
    compression: Option<LayerCompression>,
    progress: Option<Arc<dyn Progress>>,
}

/// The place that an archive is written to.
enum Output {
    File(PathBuf),
    Stream { name: PathBuf, stream: Box<dyn Write + Send> },
}

impl ImageSave {
    /// Makes a save of these images, in their order, to an archive at `output`.
    pub fn new<R: Into<String>>(references: impl IntoIterator<Item = R>, output: impl Into<PathBuf>) -> Self {
        Self::to(references, Output::File(output.into()))
    }

    /// Makes a save of these images, in their order, to a stream that errors call by `name`, such as `standard output`.
    /// The archive has the same bytes as in a file.
    ///
    /// Nothing is written to the stream before the first image is found. Layers that are compressed are written to a file
    /// without a name in the cache first, since their lengths come before them. A thread of its own writes. If the future
    /// is dropped, it ends when the stream takes what is being written, or fails; the rest of the work ends soon.
    pub fn to_writer<R: Into<String>>(
        references: impl IntoIterator<Item = R>,
        name: &str,
        stream: impl Write + Send + 'static,
    ) -> Self {
        Self::to(references, Output::Stream { name: name.into(), stream: Box::new(stream) })
    }

    fn to<R: Into<String>>(references: impl IntoIterator<Item = R>, output: Output) -> Self {
        Self {
            references: references.into_iter().map(Into::into).collect(),
            output,
            format: ImageArchiveFormat::default(),
            compression: None,
            progress: None,
        }
    }

    /// Sets the form of the archive.
    pub fn format(mut self, format: ImageArchiveFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the compression of the layers, instead of [that of the form](LayerCompression::of).
    pub fn compression(mut self, compression: LayerCompression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets the receiver of progress. A layer that several images share is saved and reported once.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Saves the images, and returns a report of them. See [`Image::save_local`](crate::Image::save_local).
    ///
    /// # Errors
    /// The same as [`Image::save_local`](crate::Image::save_local).
    pub async fn run(self, local: &LocalBackend) -> MicrosandboxResult<SaveReport> {
        let Self { references, output, format, compression, progress } = self;
        let compression = compression.unwrap_or_else(|| LayerCompression::of(format));
        let store = Arc::clone(local.store());
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let (report, saved) = blocking(ACTION, move || {
            let reader = store.catalog().reader()?;
            let targets = source::resolve(&reader, &references)?;
            let (output, archive) = match output {
                Output::File(path) => {
                    let archive = Archive::create(&path).map_err(MicrosandboxError::io("write", &path))?;
                    (path, archive)
                }
                Output::Stream { name, stream } => {
                    let stream = Outgoing::start(stream, Arc::clone(&cancelled));
                    let stream = stream.map_err(MicrosandboxError::io("write", &name))?;
                    (name, Archive::stream(Box::new(stream), store.cache().root().join(TEMPORARY)))
                }
            };
            let (documents, packing) = (Documents::new(format, compression), Packing::new(compression)?);
            let layers = HashMap::new();
            let saved = saved(&reader, &targets);
            let saving =
                Saving { store, reader, output, archive, documents, packing, layers, progress, cancelled };
            Ok((saving.run(targets)?, saved))
        })
        .await?;
        record(local, saved).await;
        Ok(report)
    }
}

impl std::fmt::Debug for ImageSave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageSave")
            .field("references", &self.references)
            .field("format", &self.format)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// An image that is saved, for the journal.
struct Saved {
    manifest: String,
    references: Vec<String>,
}

/// Returns what to record when the images are saved: nothing in a home that Larder has never changed, since saving reads.
fn saved(reader: &PooledReader, targets: &[Target]) -> Vec<Saved> {
    let is_ours = matches!(identity::home_id(reader), Ok(Some(_)));
    let targets = targets.iter().filter(|_| is_ours);
    let saved = |target: &Target| Saved {
        manifest: target.manifest_digest.clone(),
        references: target.references.clone(),
    };
    targets.map(saved).collect()
}

/// Records that images were saved. They are, whether that can be recorded or not: the home may be read-only.
async fn record(local: &LocalBackend, saved: Vec<Saved>) {
    if saved.is_empty() {
        return;
    }
    let (action, at) = ("record what was saved", local.now());
    let record = move |writer: &mut Writer, _: &_| {
        writer.change(action, |connection| {
            for Saved { manifest, references } in &saved {
                for reference in references {
                    let reference = Some(reference.as_str());
                    let new = NewUse { manifest, reference, sandbox: None, kind: UseKind::Save, at };
                    journal::record(connection, &new).map_err(MicrosandboxError::db(action))?;
                }
            }
            Ok(())
        })
    };
    if let Err(error) = local.store().write_on(action, record).await {
        tracing::debug!("could not {action}: {error}");
    }
}

fn interrupted() -> MicrosandboxError {
    MicrosandboxError::Interrupted(ACTION.to_owned())
}
