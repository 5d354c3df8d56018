//! The images of an OCI image layout. Its `index.json` lists them.

use std::collections::HashMap;

use super::resolve::{Candidate, PassedOver, UNKNOWN};
use super::{Documents, Resolver, SourceImage, SourceName, check_count};
use crate::ingest::bundle::{Bundle, Section};
use crate::ingest::document::{Descriptor, Index, parse};
use crate::ingest::error::IngestError;
use crate::reference::Digest;

impl Documents for Bundle {
    fn origin(&self) -> &str {
        self.name()
    }

    fn manifest(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        self.config(digest, size)
    }

    fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, IngestError> {
        let section = self.sized(self.blob(digest)?, digest, size)?;
        self.document(&section, digest.as_str())
    }
}

/// Returns the images for the wanted platform, with their names.
pub(super) fn images(
    bundle: &Bundle,
    resolver: &Resolver<'_>,
    index: &Section,
    passed: &mut PassedOver,
) -> Result<Vec<SourceImage>, IngestError> {
    let text = bundle.document(index, "index.json")?;
    let index: Index = parse("index.json", &text).map_err(|problem| resolver.fail(problem))?;
    check_count(resolver, index.manifests.len())?;
    let mut images = Vec::new();
    for group in groups(&index.manifests, resolver, passed) {
        if let Some(mut image) = resolver.choose(group.members, 0, passed)? {
            image.names = group.names;
            images.push(image);
        }
    }
    Ok(images)
}

/// Members of an index of which one is an image.
struct Group<'d> {
    names: Vec<SourceName>,
    members: Vec<Candidate<'d>>,
}

impl Group<'_> {
    /// Returns whether each member suits as well as this rank, or has a platform that is not known.
    fn is_as_good_as(&self, rank: u32) -> bool {
        self.members.iter().all(|member| member.rank == rank || member.rank == UNKNOWN)
    }
}

/// Returns the members of an index in groups: those of one name are for several platforms. What has no name is an image of its
/// own; of those whose platforms are known, only the ones that suit best.
fn groups<'d>(members: &'d [Descriptor], resolver: &Resolver<'_>, passed: &mut PassedOver) -> Vec<Group<'d>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places: HashMap<Vec<SourceName>, usize> = HashMap::new();
    let mut best = UNKNOWN;
    for member in members {
        let Some(candidate) = resolver.candidate(member, passed) else { continue };
        let names = names_of(member);
        if names.is_empty() {
            best = best.min(candidate.rank);
        }
        let place = places.get(&names).copied().filter(|_| !names.is_empty());
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => group.members.push(candidate),
            None => {
                places.insert(names.clone(), groups.len());
                groups.push(Group { names, members: vec![candidate] });
            }
        }
    }
    groups.retain(|group| !group.names.is_empty() || group.is_as_good_as(best));
    groups
}

/// Returns the names of an image in its descriptor.
fn names_of(descriptor: &Descriptor) -> Vec<SourceName> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty()).cloned();
    let own = annotation("org.opencontainers.image.ref.name").map(|name| match name.contains(['/', ':']) {
        true => SourceName::Whole(name),
        false => SourceName::Tag(name),
    });
    annotation("io.containerd.image.name").map(SourceName::Whole).or(own).into_iter().collect()
}
