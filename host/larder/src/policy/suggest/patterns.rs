//! From images to the patterns of a grant.
//!
//! A pattern stands for all images of one repository that are named in the same way: by tag, by digest, or by both.
//! Where a directory of a registry has more than a handful of repositories, and every one of them is needed, one
//! pattern stands for the directory. No pattern matches an image of a repository of which none is needed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::pattern::ReferencePattern;
use crate::policy::grant::everything;
use crate::reference::Reference;

/// From this many repositories on, a whole directory becomes one pattern.
const MANY: usize = 9;

/// The place of an image, as texts of patterns.
struct Place {
    /// All images of its repository that are named in the same way.
    repository: String,
    /// The same of all repositories beside it; an image without a reference has none.
    directory: Option<String>,
}

impl Place {
    fn of(image: &str) -> Self {
        let Ok(reference) = image.parse::<Reference>() else {
            return Self { repository: verbatim(image), directory: None };
        };
        let repository = reference.repository();
        let name = &reference.as_str()[repository.len()..];
        let named = match (name.starts_with(':'), name.contains('@')) {
            (true, false) => ":*",
            (true, true) => ":*@*:*",
            (false, _) => "@*:*",
        };
        Self {
            repository: format!("{repository}{named}"),
            directory: repository.rsplit_once('/').map(|(directory, _)| format!("{directory}/*{named}")),
        }
    }
}

/// Returns the pattern of a text that is no reference, with two stars where a pattern cannot have its characters.
fn verbatim(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | ':' | '@' | '-' | '_' | '+' | '.' => {
                pattern.push(character);
            }
            _ if pattern.ends_with('*') => {}
            _ => pattern.push_str("**"),
        }
    }
    pattern
}

/// Returns the patterns that match these of the images, and none of a repository that has none of them, sorted.
pub(super) fn cover(images: &[String], needed: &[String]) -> Vec<ReferencePattern> {
    let needed: HashSet<&str> = needed.iter().map(String::as_str).collect();
    let mut directories: BTreeMap<Option<String>, BTreeMap<String, bool>> = BTreeMap::new();
    for image in images {
        let place = Place::of(image);
        let is_needed = directories.entry(place.directory).or_default().entry(place.repository).or_default();
        *is_needed |= needed.contains(image.as_str());
    }
    let mut patterns = BTreeSet::new();
    for (directory, repositories) in directories {
        match directory {
            Some(directory) if repositories.len() >= MANY && repositories.values().all(|&needed| needed) => {
                patterns.insert(directory);
            }
            _ => {
                patterns.extend(repositories.into_iter().filter(|(_, needed)| *needed).map(|(text, _)| text))
            }
        }
    }
    let parsed: Result<Vec<_>, _> = patterns.iter().map(|pattern| pattern.parse()).collect();
    // A text in the index may be longer, or odder, than any pattern may be.
    parsed.unwrap_or_else(|_| vec![everything()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(images: &[&str], needed: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        cover(&owned(images), &owned(needed)).iter().map(ToString::to_string).collect()
    }

    /// A pattern stands for a repository, in each way in which its images are named, however they are spelled.
    #[test]
    fn repositories_become_patterns() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let (by_digest, by_both) = (format!("acme/app@{digest}"), format!("acme/app:2@{digest}"));
        let images =
            ["acme/app:1", "docker.io/acme/app:2", "python", "localhost:5000/a:1", &by_digest, &by_both];
        assert_eq!(texts(&images, &["acme/app:1"]), ["docker.io/acme/app:*"]);
        assert_eq!(
            texts(&images, &["python", "localhost:5000/a:1"]),
            ["docker.io/library/python:*", "localhost:5000/a:*"]
        );
        assert_eq!(
            texts(&images, &[&by_digest, &by_both]),
            ["docker.io/acme/app:*@*:*", "docker.io/acme/app@*:*"]
        );
        assert_eq!(texts(&images, &[]), [""; 0]);
    }

    /// A directory of many repositories is one pattern where all of them are needed, and never where one is not.
    #[test]
    fn directories() {
        let many: Vec<String> = (0..20).map(|number| format!("quay.io/acme/app{number}:1")).collect();
        let mut images: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(texts(&images, &images), ["quay.io/acme/*:*"]);
        assert_eq!(texts(&images, &images[1..]).len(), 19);
        assert_eq!(texts(&images[..8], &images[..8]).len(), 8);
        images.extend(["quay.io/acme/deep/app:1", "quay.io/other:1"]);
        assert_eq!(texts(&images, &images[..20]), ["quay.io/acme/*:*"]);
    }

    /// What stands in the index without being a reference is covered as well as patterns can.
    #[test]
    fn odd_texts() {
        assert_eq!(texts(&["NOT A  REF", "acme/app:1"], &["NOT A  REF"]), ["NOT**A**REF"]);
        let monster = "a b".repeat(400);
        assert_eq!(texts(&[&monster], &[&monster]), ["**"]);
    }

    fn image() -> impl Strategy<Value = String> {
        const REPOSITORIES: &[&str] =
            &["docker.io/a/x", "docker.io/a/y", "docker.io/a/xy", "quay.io/a/x", "quay.io/a/b/x", "ODD x"];
        (proptest::sample::select(REPOSITORIES), 0..3_u32)
            .prop_map(|(repository, number)| format!("{repository}:{number}"))
    }

    proptest! {
        /// Whatever is needed is matched, and no image of a repository of which nothing is needed.
        #[test]
        fn covers_what_is_needed_and_no_other_repository(images in proptest::collection::btree_set(image(), 0..12), mask: u16) {
            let images: Vec<String> = images.into_iter().collect();
            let needed: Vec<String> =
                images.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1).map(|(_, image)| image.clone()).collect();
            let patterns = cover(&images, &needed);
            let places: HashSet<String> = needed.iter().map(|image| Place::of(image).repository).collect();
            for image in &images {
                let matched = patterns.iter().any(|pattern| pattern.matches_text(image, image.parse().ok().as_ref()));
                prop_assert_eq!(matched, places.contains(&Place::of(image).repository), "{} {:?}", image, patterns);
            }
        }
    }
}
