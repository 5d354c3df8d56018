//! Sources of the blobs of layers.

use super::error::IngestError;
use super::layer::BlobSource;
use super::progress::LayerStep;
use super::source::SourceLayer;
use crate::catalog::journal::PullCost;

/// A source of the blobs of layers.
pub(crate) trait Blobs: Sync {
    /// The step of a blob until it is an EROFS image.
    const STEP: LayerStep;

    /// Returns the path or reference that the blobs belong to, for errors.
    fn origin(&self) -> &str;

    /// Returns the maximum number of layers that are processed at a time.
    fn concurrency(&self) -> usize;

    /// Opens the blob of a layer that the cache does not have. The blob is as long as the layer states, or reading it
    /// fails.
    fn open(&self, layer: &SourceLayer) -> Result<BlobSource, IngestError>;

    /// Refuses a layer whose blob is known to have another size than is stated.
    fn check_size(&self, _: &SourceLayer) -> Result<(), IngestError> {
        Ok(())
    }

    /// Returns a part of the blob of a layer, without the rest. `None` if that cannot be had, or fails.
    fn part(&self, layer: &SourceLayer, offset: u64, length: u64) -> Option<Vec<u8>>;

    /// Ends all reading, of blobs that were opened and of those that would be, with an error.
    fn stop(&self) {}

    /// Returns the cost so far, if blobs of layers came over the network.
    fn cost(&self) -> Option<PullCost> {
        None
    }
}
