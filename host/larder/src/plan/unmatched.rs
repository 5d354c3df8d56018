//! Patterns that matched nothing: they may be meant for images to come, or be mistaken.

use serde::{Deserialize, Serialize};

use crate::pattern::ReferencePattern;
use crate::policy::GrantDocument;
use crate::records::Guard;
use crate::reference::Reference;

/// A pattern that matched no image of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmatchedPattern {
    /// The list that has it.
    pub list: PatternList,
    /// A pattern that matches images of the cache, and that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meant: Option<ReferencePattern>,
    /// The pattern.
    pub pattern: ReferencePattern,
}

/// A list of patterns in a grant or a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatternList {
    /// `protect` in `[guard]`.
    Protect,
    /// `read` in `[grant]`.
    Read,
    /// `inspect` in `[grant]`.
    Inspect,
    /// `remove` in `[grant]`.
    Remove,
}

/// The name of an image: as it stands in the index, and what it means where it is a reference.
pub(crate) type Named<'a> = (&'a str, Option<&'a Reference>);

/// Returns the patterns of a guard that match none of all images.
pub(crate) fn of_guard(guard: &Guard, images: &[Named<'_>]) -> Vec<UnmatchedPattern> {
    unmatched(PatternList::Protect, &guard.protect, images).collect()
}

/// Returns the patterns of a grant and its guard that match none of all images.
#[cfg_attr(not(feature = "policy"), expect(dead_code, reason = "only policies have grants"))]
pub(crate) fn of_grant(document: &GrantDocument, images: &[Named<'_>]) -> Vec<UnmatchedPattern> {
    let GrantDocument { grant, guard, .. } = document;
    let lists = [
        (PatternList::Protect, &guard.protect),
        (PatternList::Read, &grant.read),
        (PatternList::Inspect, &grant.inspect),
        (PatternList::Remove, &grant.remove),
    ];
    lists.into_iter().flat_map(|(list, patterns)| unmatched(list, patterns, images)).collect()
}

fn unmatched<'a>(
    list: PatternList,
    patterns: &'a [ReferencePattern],
    images: &'a [Named<'a>],
) -> impl Iterator<Item = UnmatchedPattern> + 'a {
    patterns
        .iter()
        .filter(|pattern| !pattern.is_everything())
        .filter(|pattern| !images.iter().any(|(text, reference)| pattern.matches_text(text, *reference)))
        .map(move |pattern| {
            let references = images.iter().filter_map(|(_, reference)| *reference);
            UnmatchedPattern { list, meant: pattern.likely_among(references), pattern: pattern.clone() }
        })
}
