//! Archives as they come from `docker save` and as OCI image layouts, compressed or not.
//!
//! **Invariant**: any bytes are refused, or hold images whose documents have the digests that they are known by, and
//! whose layers are there, or are missing with an error. Layers are not converted: that is the target `tar`.

use std::env;

use larder::ingest::fuzzing::{self, FoundImage};
use larder::ingest::{IngestError, IngestLimits};
use larder::reference::{Digest, Reference};
use serde_json::Value;

use super::Verdict;

/// So small that each is met by an input of some kilobytes, and nothing takes long.
fn limits() -> IngestLimits {
    let mut limits = IngestLimits::default();
    limits.archive_bytes = 1 << 20;
    limits.archive_entries = 50;
    limits.images = 5;
    limits.document_bytes = 16 << 10;
    limits.all_documents_bytes = 64 << 10;
    limits.layers = 4;
    limits
}

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    match images(bytes) {
        Ok(images) => {
            images.iter().for_each(check_image);
            Verdict::Taken
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    }
}

/// The images that an archive holds.
pub(super) fn images(bytes: &[u8]) -> Result<Vec<FoundImage>, IngestError> {
    fuzzing::archive(bytes, &env::temp_dir(), &limits())
}

/// What is always so of an image that was found.
pub(super) fn check_image(image: &FoundImage) {
    assert!(!image.references.is_empty(), "an image without a name");
    for reference in &image.references {
        let again: Reference = reference.parse().expect("a normalized reference is one");
        assert_eq!(again.as_str(), reference);
    }
    let metadata: Value = serde_json::from_str(&image.metadata).expect("metadata are JSON");
    let text = |key: &str| metadata[key].as_str().expect("a text");
    assert_eq!(text("manifest_digest"), image.manifest.as_str());
    for document in ["manifest", "config"] {
        let raw = text(&format!("raw_{document}_json"));
        assert_eq!(Digest::of(raw.as_bytes()).as_str(), text(&format!("{document}_digest")), "of {raw}");
    }
    assert_eq!(metadata["layers"].as_array().map(Vec::len), Some(image.layers.len()));
    assert!(image.layers.len() as u64 <= limits().layers);
    for layer in &image.layers {
        if let Err(error) = &layer.found {
            assert!(!error.to_string().is_empty());
        }
    }
}
