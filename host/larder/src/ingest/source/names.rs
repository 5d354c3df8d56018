//! The names that images get, and the choice among the images of a source.
//!
//! Without names of the caller, an image gets the whole names that it has in its source. A name of the caller with a tag or a
//! digest is for one image. One without is a repository: each image keeps its own tags in it. What remains without a name is left
//! out and reported, and fails the call only if nothing else is left.

use std::collections::HashMap;
use std::str::FromStr;

use super::{Found, NamedImage, SourceImage, SourceName};
use crate::ingest::error::IngestProblem;
use crate::ingest::platform::Platform;
use crate::reference::{Reference, ReferenceError};

/// The images that a caller wants of a source.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) platform: Platform,
    /// The chosen images, or none for all.
    pub(crate) selections: Vec<Selection>,
    /// The names instead of those in the source.
    pub(crate) names: Vec<NewName>,
}

impl Wanted {
    /// Returns the wish for every image for this machine, with its own names.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn all() -> Self {
        Self { platform: Platform::of_this_machine(), selections: Vec::new(), names: Vec::new() }
    }
}

/// A name that a caller gives.
#[derive(Debug, Clone)]
pub(crate) struct NewName {
    reference: Reference,
    /// True if the text has neither a tag nor a digest, and so names a repository.
    is_repository: bool,
}

impl FromStr for NewName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let last = text.rsplit('/').next().unwrap_or_default();
        Ok(Self { reference: text.parse()?, is_repository: !last.contains([':', '@']) })
    }
}

/// An image of a source, chosen by a name in it, by its tag, or by the digest of its manifest or config.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    text: String,
    reference: Option<Reference>,
}

impl From<String> for Selection {
    fn from(text: String) -> Self {
        let reference = text.parse().ok();
        Self { text, reference }
    }
}

/// The minimum number of hex digits by which a digest is chosen.
const SHORTEST_DIGEST: usize = 12;

impl Selection {
    fn is_name(&self, name: &SourceName) -> bool {
        match name {
            SourceName::Tag(tag) => *tag == self.text,
            SourceName::Whole(name) => {
                let parsed: Option<Reference> = name.parse().ok();
                *name == self.text
                    || self.reference.is_some() && parsed == self.reference
                    || parsed.is_some_and(|parsed| parsed.tag() == Some(self.text.as_str()))
            }
        }
    }

    fn is_digest_of(&self, image: &SourceImage) -> bool {
        let hex = self.text.strip_prefix("sha256:").unwrap_or(&self.text);
        hex.len() >= SHORTEST_DIGEST
            && [&image.manifest, &image.config_digest].iter().any(|digest| digest.hex().starts_with(hex))
    }
}

/// An image, or a name of one, that is left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// A name of the image, or its digest.
    pub(crate) image: String,
    pub(crate) why: String,
}

/// Chooses among images, and gives them their names.
pub(super) fn assign(images: Vec<SourceImage>, wanted: &Wanted) -> Result<Found, IngestProblem> {
    let images = select(images, &wanted.selections)?;
    let has_whole = wanted.names.iter().any(|name| !name.is_repository);
    if has_whole && images.len() > 1 {
        return Err(IngestProblem::Ambiguous(images.iter().map(shown).collect()));
    }
    let is_only = images.len() == 1;
    let mut found = Found { images: Vec::new(), skipped: Vec::new() };
    let mut wrong: Vec<ReferenceError> = Vec::new();
    for image in images {
        let before = wrong.len();
        let references = if wanted.names.is_empty() {
            own(&image, &mut wrong)
        } else {
            given(&image, &wanted.names, is_only)
        };
        let (references, of_others): (Vec<_>, Vec<_>) =
            references.into_iter().partition(|reference| is_digest_right(reference, &image));
        if let Some(reference) = of_others.first().filter(|_| !wanted.names.is_empty()) {
            let reference = reference.to_string();
            return Err(IngestProblem::OtherDigest { reference, manifest: image.manifest });
        }
        let is_wrong = wrong.len() > before || !of_others.is_empty();
        found.skipped.extend(of_others.iter().map(|reference| {
            let why = format!("its digest is that of another manifest than `{}`", image.manifest);
            Skipped { image: reference.to_string(), why }
        }));
        let skipped =
            |error: &ReferenceError| Skipped { image: error.text().to_owned(), why: error.problem() };
        found.skipped.extend(wrong[before..].iter().map(skipped));
        match references.is_empty() {
            false => found.images.push(NamedImage { image, references }),
            true if is_wrong => {}
            true => found.skipped.push(Skipped { image: shown(&image), why: nameless(&image).to_owned() }),
        }
    }
    if wanted.names.is_empty() {
        found.images = one_image_each(found.images, &mut found.skipped);
    } else {
        check_unique(&found.images)?;
    }
    if found.images.is_empty() {
        let skipped = || found.skipped.into_iter().map(|skipped| skipped.image).collect();
        let first = wrong.into_iter().next();
        return Err(first.map_or_else(|| IngestProblem::Unnamed(skipped()), IngestProblem::Name));
    }
    Ok(found)
}

/// Returns whether a reference that has a digest has that of the image's manifest. An archive could otherwise put any content under
/// a name that promises its own.
fn is_digest_right(reference: &Reference, image: &SourceImage) -> bool {
    reference.digest().is_none_or(|digest| digest == image.manifest.as_str())
}

/// Returns the images with each name for one of them: of several under one name, the last counts.
fn one_image_each(images: Vec<NamedImage>, skipped: &mut Vec<Skipped>) -> Vec<NamedImage> {
    let mut owners: HashMap<Reference, usize> = HashMap::new();
    for (place, named) in images.iter().enumerate() {
        owners.extend(named.references.iter().map(|reference| (reference.clone(), place)));
    }
    let mut left = Vec::new();
    for (place, mut named) in images.into_iter().enumerate() {
        named.references.retain(|reference| {
            let is_own = owners.get(reference) == Some(&place);
            if !is_own {
                let why = "another image of the archive has the same name".to_owned();
                skipped.push(Skipped { image: reference.to_string(), why });
            }
            is_own
        });
        if !named.references.is_empty() {
            left.push(named);
        }
    }
    left
}

/// Returns the chosen images, each with the names by which it was chosen, or with all if it was chosen by a digest.
fn select(images: Vec<SourceImage>, selections: &[Selection]) -> Result<Vec<SourceImage>, IngestProblem> {
    if selections.is_empty() {
        return Ok(images);
    }
    let mut is_found = vec![false; selections.len()];
    let mut chosen = Vec::new();
    let all: Vec<String> = images.iter().map(shown).collect();
    for mut image in images {
        let mut by_digest = false;
        let mut names = Vec::new();
        for (selection, is_found) in selections.iter().zip(&mut is_found) {
            let named: Vec<_> = image.names.iter().filter(|name| selection.is_name(name)).cloned().collect();
            let has_digest = selection.is_digest_of(&image);
            *is_found |= has_digest || !named.is_empty();
            by_digest |= has_digest;
            names.extend(named);
        }
        if !by_digest && names.is_empty() {
            continue;
        }
        if !by_digest {
            image.names = names;
        }
        chosen.push(image);
    }
    match selections.iter().zip(is_found).find(|(_, is_found)| !is_found) {
        Some((missing, _)) => Err(IngestProblem::NotInArchive { wanted: missing.text.clone(), found: all }),
        None => Ok(chosen),
    }
}

/// Returns the whole names of an image, each once. Adds the errors of those that are not references.
fn own(image: &SourceImage, wrong: &mut Vec<ReferenceError>) -> Vec<Reference> {
    let mut references = Vec::new();
    for name in &image.names {
        let SourceName::Whole(text) = name else { continue };
        match text.parse() {
            Ok(reference) => push_new(&mut references, reference),
            Err(error) => wrong.push(error),
        }
    }
    references
}

/// Returns the names that the caller gives to an image.
fn given(image: &SourceImage, names: &[NewName], is_only: bool) -> Vec<Reference> {
    let mut references = Vec::new();
    let tags = tags(image);
    for name in names {
        if !name.is_repository || (tags.is_empty() && is_only) {
            push_new(&mut references, name.reference.clone());
            continue;
        }
        for tag in &tags {
            if let Ok(reference) = format!("{}:{tag}", name.reference.repository()).parse() {
                push_new(&mut references, reference);
            }
        }
    }
    references
}

/// Returns the tags of an image in its source.
fn tags(image: &SourceImage) -> Vec<String> {
    let tag = |name: &SourceName| match name {
        SourceName::Tag(tag) => Some(tag.clone()),
        SourceName::Whole(text) => text.parse::<Reference>().ok()?.tag().map(str::to_owned),
    };
    image.names.iter().filter_map(tag).collect()
}

fn push_new(references: &mut Vec<Reference>, reference: Reference) {
    if !references.contains(&reference) {
        references.push(reference);
    }
}

/// Refuses to give one name to two images.
fn check_unique(images: &[NamedImage]) -> Result<(), IngestProblem> {
    let mut owners: HashMap<&Reference, &SourceImage> = HashMap::new();
    for named in images {
        for reference in &named.references {
            if let Some(other) = owners.insert(reference, &named.image) {
                return Err(IngestProblem::Ambiguous(vec![shown(other), shown(&named.image)]));
            }
        }
    }
    Ok(())
}

/// Returns a name of an image for a message, or its digest if it has none.
fn shown(image: &SourceImage) -> String {
    image.names.first().map_or_else(|| image.manifest.to_string(), |name| name.as_str().to_owned())
}

/// Returns why an image gets no name.
fn nameless(image: &SourceImage) -> &'static str {
    if image.names.is_empty() { "it has no name" } else { "its name is a tag without a repository" }
}
