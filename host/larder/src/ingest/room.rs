//! Room for a load or pull, before its first byte.
//!
//! What an image needs is known before it is taken in: the content of the layers that the cache does not have, since an
//! EROFS image is about as long as the archive that it is made of. How long the content of a compressed layer is, its last
//! or first bytes say; where they do not, it is at least as long as the blob. They are asked for only where room is scarce.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::blobs::Blobs;
use super::compression::Compression;
use super::error::IngestProblem;
use super::source::{NamedImage, SourceLayer};
use super::work::{Work, distinct};
use crate::artifacts::{self, Entry, Room, lease};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Makes room on the file system of a cache, for example by removing images: a [`Jobs`](crate::job::Jobs) is one.
pub trait MakeRoom: Send + Sync {
    /// Makes so many bytes available, as far as it can. It is not told whether they are: who asks looks for itself.
    ///
    /// # Errors
    /// Fails if it could not find out what to do. The load or pull fails with this error.
    fn make_room(&self, bytes: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>>;
}

/// Makes no room: a load or pull that does not fit fails before its first byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsItIs;

impl MakeRoom for AsItIs {
    fn make_room(&self, _: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What every load or pull needs besides layers: rows, the log of the index, and the joined metadata of images.
const BESIDES: u64 = 1 << 20;
/// How often room is made for one load or pull.
const ATTEMPTS: usize = 2;
/// The joined metadata of an image is a small part of its layers: one in so many.
const METADATA: u64 = 64;
/// So many last bytes of a gzip member are the length of its content, modulo 2³² (RFC 1952, section 2.3.1).
const GZIP_LENGTH: u64 = 4;
/// The longest header of a zstd frame (RFC 8878, section 3.1.1.1).
const ZSTD_HEADER: u64 = 18;

/// Content is hardly ever more than so many times as long as its blob.
const EXPANSION: u64 = 10;

impl Work<'_> {
    /// Returns the bytes that these images need for layers that the cache does not have; none if there is room for any. Those that it
    /// has are held from now on, as far as that many leases can be held, so that making room takes none of them.
    pub(crate) fn needed(
        &self,
        images: &[NamedImage],
        blobs: &impl Blobs,
    ) -> MicrosandboxResult<Option<u64>> {
        let mut missing = Vec::new();
        let mut held = 0;
        for layer in distinct(images) {
            let entry = Entry::named(Room::Layers, &layer.diff_id);
            if held < lease::most_held() && self.sound(&entry)?.is_some() {
                drop(self.publication.hold(&entry, || {})?);
                held += 1;
            }
            if self.sound(&entry)?.is_none() && !self.publication.is_kept(&entry) {
                // Nothing goes for an image that cannot be loaded.
                blobs.check_size(layer)?;
                missing.push(layer);
            }
        }
        needed(&missing, blobs, self.publication.cache().root())
    }
}

/// Returns the bytes that a load or pull needs for layers that the cache does not have; none if so many more are available
/// that nobody has to know.
fn needed(layers: &[&SourceLayer], blobs: &impl Blobs, cache: &Path) -> MicrosandboxResult<Option<u64>> {
    let stored = layers.iter().map(|layer| layer.size).fold(BESIDES, u64::saturating_add);
    if layers.is_empty() || measure(cache)? >= stored.saturating_mul(EXPANSION) {
        return Ok(None);
    }
    let content: u64 = layers.iter().map(|layer| content_bytes(layer, blobs)).fold(0, u64::saturating_add);
    Ok(Some(content.saturating_add(content / METADATA).saturating_add(BESIDES)))
}

/// Returns how long the content of a layer is, as far as that is known; otherwise the length of its blob.
fn content_bytes(layer: &SourceLayer, blobs: &impl Blobs) -> u64 {
    let known = match compression(layer, blobs) {
        Compression::None | Compression::Foreign(_) => None,
        Compression::Gzip => {
            let last = layer.size.saturating_sub(GZIP_LENGTH);
            blobs.part(layer, last, GZIP_LENGTH).and_then(|bytes| gzip_length(&bytes))
        }
        Compression::Zstd => {
            let header = blobs.part(layer, 0, ZSTD_HEADER.min(layer.size));
            header.and_then(|bytes| zstd::zstd_safe::get_frame_content_size(&bytes).ok().flatten())
        }
    };
    // What is much longer compressed than not is of several members or of more than 4 GiB: its length is not known. Fast
    // compressors make what they cannot compress up to an eighth longer.
    known.filter(|&known| known >= layer.size - layer.size / 8).unwrap_or(layer.size)
}

/// Returns the compression of a layer by its media type, or by its first bytes if the type says nothing.
fn compression(layer: &SourceLayer, blobs: &impl Blobs) -> Compression {
    match &layer.media_type {
        named if named.ends_with("gzip") => Compression::Gzip,
        named if named.ends_with("zstd") => Compression::Zstd,
        _ => Compression::detect(&blobs.part(layer, 0, 4.min(layer.size)).unwrap_or_default()),
    }
}

fn gzip_length(bytes: &[u8]) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
}

/// Makes room for so many bytes, and checks that it is there.
pub(super) async fn make(
    room: &Arc<dyn MakeRoom>,
    local: &LocalBackend,
    origin: &str,
    needed: u64,
) -> MicrosandboxResult<()> {
    // What others take in meanwhile may take the room that was made.
    for _ in 0..ATTEMPTS {
        if available(local).await? >= needed {
            return Ok(());
        }
        room.make_room(needed).await?;
    }
    let available = available(local).await?;
    if available < needed {
        return Err(IngestProblem::NoRoom { needed, available }.of(origin).into());
    }
    Ok(())
}

/// Makes room for what every load or pull needs. Whether it is there shows when it is needed.
pub(super) async fn make_little(room: &Arc<dyn MakeRoom>, local: &LocalBackend) -> MicrosandboxResult<()> {
    if available(local).await? < BESIDES {
        room.make_room(BESIDES).await?;
    }
    Ok(())
}

async fn available(local: &LocalBackend) -> MicrosandboxResult<u64> {
    let cache = local.cache_dir().to_owned();
    blocking("measure the file system", move || measure(&cache)).await
}

/// Returns the bytes that are available on the file system of a cache.
fn measure(cache: &Path) -> MicrosandboxResult<u64> {
    let fs = artifacts::file_system(cache).map_err(MicrosandboxError::io("measure", cache))?;
    Ok(fs.f_frsize.saturating_mul(fs.f_bavail))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::ingest::error::IngestError;
    use crate::ingest::layer::BlobSource;
    use crate::ingest::progress::LayerStep;
    use crate::reference::Digest;

    /// One blob.
    struct Blob(Vec<u8>);

    impl Blobs for Blob {
        const STEP: LayerStep = LayerStep::Convert;

        fn origin(&self) -> &str {
            "a test"
        }

        fn concurrency(&self) -> usize {
            1
        }

        fn open(&self, _: &SourceLayer) -> Result<BlobSource, IngestError> {
            Ok(Box::new(std::io::Cursor::new(self.0.clone())))
        }

        fn part(&self, _: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>> {
            let from = usize::try_from(offset).ok()?;
            self.0.get(from..from + usize::try_from(length).ok()?).map(<[u8]>::to_vec)
        }
    }

    fn length(blob: Vec<u8>, media_type: &str) -> u64 {
        let digest = Digest::of(&blob);
        let layer = SourceLayer {
            diff_id: digest.clone(),
            digest,
            size: blob.len() as u64,
            media_type: media_type.to_owned(),
            blob: String::new(),
        };
        content_bytes(&layer, &Blob(blob))
    }

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("written");
        encoder.finish().expect("a member")
    }

    /// The length of a layer's content is read from its ends, whatever its media type calls it; where that is not possible it
    /// is at least that of the blob.
    #[test]
    fn lengths() {
        let (content, tar) = (vec![b'a'; 100_000], "application/vnd.oci.image.layer.v1.tar");
        assert_eq!(length(content.clone(), tar), 100_000);
        assert_eq!(length(gzipped(&content), &format!("{tar}+gzip")), 100_000);
        assert_eq!(length(gzipped(&content), "application/octet-stream"), 100_000);
        let framed = zstd::bulk::compress(&content, 3).expect("a frame");
        assert_eq!(length(framed, &format!("{tar}+zstd")), 100_000);
        // The last of several members is shorter than all of them.
        let noise: Vec<u8> = (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let members = [gzipped(&noise), gzipped(b"end")].concat();
        let blob = members.len() as u64;
        assert_eq!(length(members, &format!("{tar}+gzip")), blob);
        assert_eq!(length(Vec::new(), &format!("{tar}+gzip")), 0);
        assert_eq!(length(vec![1, 2], tar), 2);
    }
}
