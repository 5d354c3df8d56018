//! The images of an OCI image layout. Its `index.json` lists them.

use super::resolve::Candidate;
use super::{Documents, Resolver, SourceImage, check_count};
use crate::ingest::bundle::{Bundle, Section};
use crate::ingest::document::{Descriptor, Index, parse};
use crate::ingest::error::{IngestError, IngestProblem};
use crate::reference::Digest;

impl Documents for Bundle {
    fn origin(&self) -> &str {
        self.name()
    }

    fn manifest(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        self.config(digest, size)
    }

    fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        let section = self.blob(digest)?;
        if section.len() != size {
            let (what, found) = (digest.to_string(), section.len());
            return Err(IngestProblem::WrongSize { what, expected: size, found }.of(self.name()));
        }
        self.document(&section, digest.as_str())
    }
}

/// Returns the images for this machine, with their names.
pub(super) fn images(
    bundle: &Bundle,
    resolver: &Resolver<'_>,
    index: &Section,
) -> Result<Vec<SourceImage>, IngestError> {
    let text = bundle.document(index, "index.json")?;
    let index: Index = parse("index.json", &text).map_err(|problem| resolver.fail(problem))?;
    let images = || index.manifests.iter().filter(|descriptor| !descriptor.is_attached());
    check_count(resolver, images().count())?;
    let mut found: Vec<Candidate> = Vec::new();
    for descriptor in images() {
        let Some(mut candidate) = resolver.described(descriptor, 0)? else { continue };
        let names = names_of(descriptor);
        if let Ok(image) = &mut candidate.image {
            image.names.clone_from(&names);
        }
        // Of several images under one name, for several variants of this machine, the best counts.
        let same = |other: &&mut Candidate| {
            !names.is_empty() && other.image.as_ref().is_ok_and(|image| image.names == names)
        };
        match found.iter_mut().find(same) {
            Some(other) if candidate.rank < other.rank => *other = candidate,
            Some(_) if candidate.image.is_ok() => {}
            _ => found.push(candidate),
        }
    }
    resolver.suitable(found, IngestProblem::NotAnArchive)
}

/// Returns the names of an image in its descriptor.
fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty());
    let whole = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    annotation("io.containerd.image.name").or(whole).cloned().into_iter().collect()
}
