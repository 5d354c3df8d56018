//! Parts of loading and pulling as functions of bytes, for fuzz targets. They are not part of the API.
//!
//! Each runs the code of a load up to the point where the load would need a home. An error is a valid result, and any
//! other failure is a bug.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{MemfdFlags, memfd_create};

use super::account::Spent;
use super::bundle::Bundle;
use super::error::{IngestError, IngestProblem};
use super::input::Input;
use super::layer::{LayerBlob, Watch, convert};
use super::limits::IngestLimits;
use super::progress::{LayerStep, Meter};
use super::source::{NamedImage, Wanted, find_images};
use super::{metadata, source};
use crate::reference::Digest;
#[cfg(feature = "registry")]
use crate::registry::challenge::{Challenge, TokenService};
#[cfg(feature = "registry")]
use crate::registry::credentials::file::{Format, look_up};
#[cfg(feature = "registry")]
use crate::registry::credentials::secret::Place;

/// The name of the input in errors.
const ORIGIN: &str = "input";

/// Converts the blob of a layer, and returns its EROFS image.
///
/// Accepts any digest of the content.
///
/// # Errors
/// The same as those of a load.
pub fn layer(blob: &[u8], limits: &IngestLimits) -> Result<Vec<u8>, IngestError> {
    let fail = |error: io::Error| IngestProblem::reading(error).of(ORIGIN);
    let mut image = memory_file(&[]).map_err(fail)?;
    let digest = Digest::of(blob);
    let meter = Meter::new(None, &digest, LayerStep::Convert, blob.len() as u64);
    let (spent, cancelled) = (&Spent::default(), &AtomicBool::new(false));
    let watch = Watch { limits, spent, cancelled, meter: &meter };
    let source = Box::new(io::Cursor::new(blob.to_owned()));
    let blob = LayerBlob { origin: ORIGIN, source, digest: &digest, diff_id: &digest };
    match convert(blob, image.try_clone().map_err(fail)?, &watch) {
        Ok(_) => {}
        // Known when the image is whole. That of the blob itself is right.
        Err(error) if matches!(error.problem(), IngestProblem::WrongDigest { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    image.rewind().and_then(|()| image.read_to_end(&mut bytes)).map_err(fail)?;
    Ok(bytes)
}

/// An image in an archive.
#[derive(Debug)]
pub struct FoundImage {
    /// The names that the image would get.
    pub references: Vec<String>,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The content of its `manifests/<key>.json`.
    pub metadata: String,
    /// The layers, from bottom to top.
    pub layers: Vec<FoundLayer>,
}

/// A layer of an image in an archive.
#[derive(Debug)]
pub struct FoundLayer {
    /// The expected digest of the content.
    pub diff_id: Digest,
    /// The expected digest and size of the blob.
    pub blob: (Digest, u64),
    /// The actual digest and size of the blob.
    pub found: Result<(Digest, u64), IngestError>,
}

/// Returns the images of a `docker save` archive or OCI image layout in these bytes. `temporary` is a directory for
/// decompressed data.
///
/// # Errors
/// The same as those of a load.
pub fn archive(
    bytes: &[u8],
    temporary: &Path,
    limits: &IngestLimits,
) -> Result<Vec<FoundImage>, IngestError> {
    let file = memory_file(bytes).map_err(|error| IngestProblem::reading(error).of(ORIGIN))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let bundle = Bundle::open(Input::Path(path.into()), temporary, limits, Arc::default())?;
    let images = find_images(&bundle, &Wanted::all(), limits)?.images;
    Ok(images.iter().map(|named| found_image(&bundle, named)).collect())
}

fn found_image(bundle: &Bundle, named: &NamedImage) -> FoundImage {
    FoundImage {
        references: named.references.iter().map(|reference| reference.as_str().to_owned()).collect(),
        manifest: named.image.manifest.clone(),
        metadata: metadata::encode(&named.image),
        layers: named.image.layers.iter().map(|layer| found_layer(bundle, layer)).collect(),
    }
}

fn found_layer(bundle: &Bundle, layer: &source::SourceLayer) -> FoundLayer {
    let found = bundle.get(&layer.blob).and_then(|section| {
        let digest = bundle.digest(&section).map_err(|error| IngestProblem::reading(error).of(ORIGIN))?;
        Ok((digest, section.len()))
    });
    FoundLayer { diff_id: layer.diff_id.clone(), blob: (layer.digest.clone(), layer.size), found }
}

/// Returns the parameters of the strongest challenge in the values of a header, which are lines, or `None` if none is
/// understood.
#[cfg(feature = "registry")]
pub fn challenge(headers: &str) -> Option<Vec<String>> {
    match Challenge::strongest(headers.lines())? {
        Challenge::Basic => Some(Vec::new()),
        Challenge::Bearer(TokenService { realm, service, scope, .. }) => {
            Some([Some(realm), service, scope].into_iter().flatten().collect())
        }
    }
}

/// Looks the credentials for a repository up in a file of Docker and of podman. Returns whether it has some.
///
/// # Errors
/// What a message would say of the file.
#[cfg(feature = "registry")]
pub fn credentials(file: &[u8], registry: &str, repository: &str) -> Result<bool, String> {
    let place = Place { registry: registry.to_owned(), repository: repository.to_owned() };
    let found = [Format::Docker, Format::Podman].map(|format| look_up(file, format, &place)?.entry);
    let [docker, podman] = found;
    Ok(docker?.is_some() | podman?.is_some())
}

/// Makes a file in memory with this content, positioned at its beginning.
fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("larder-fuzzing", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
