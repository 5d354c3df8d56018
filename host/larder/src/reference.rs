//! Names of images and of content, parsed once at the edge.
//!
//! A [`Reference`] is normalized as Docker does it (`python` is `docker.io/library/python:latest`). A [`Digest`] is
//! `ALGORITHM:HEX`, as in the OCI image specification. A [`ReferencePattern`](crate::pattern::ReferencePattern)
//! selects references.

mod grammar;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A normalized image reference: registry, repository, and tag or digest.
///
/// The index of a home keeps the spelling that was used to pull an image. This type is the meaning of such a spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    text: String,
    repository_len: usize,
}

/// The error for text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: at character {position}, {expected}")]
pub struct ReferenceError {
    /// The given text, cut off if it is long.
    text: String,
    /// The position, counted from 1, in characters.
    position: usize,
    expected: &'static str,
}

impl Reference {
    /// Returns the registry and repository without tag and digest, such as `docker.io/library/python`.
    pub fn repository(&self) -> &str {
        &self.text[..self.repository_len]
    }

    /// Returns the tag, such as `latest`, or `None` if there is a digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tagged()?.get(self.repository_len + 1..)
    }

    /// Returns the repository with the tag and without a digest, such as `docker.io/library/python:latest`, or `None`
    /// if there is no tag.
    pub(crate) fn tagged(&self) -> Option<&str> {
        let tagged = self.text.split_once('@').map_or(self.text.as_str(), |(tagged, _)| tagged);
        (tagged.len() > self.repository_len).then_some(tagged)
    }

    /// Returns the registry, such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        self.repository().split_once('/').map_or("", |(registry, _)| registry)
    }

    /// Returns the repository without its registry, such as `library/python`.
    #[cfg(feature = "registry")]
    pub(crate) fn path(&self) -> &str {
        self.repository().split_once('/').map_or("", |(_, path)| path)
    }

    /// Returns the digest, which may be one of any algorithm.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.text.split_once('@').map(|(_, digest)| digest)
    }

    /// Returns the normalized text, such as `docker.io/library/python:latest`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name of this reference's metadata in a home: the SHA-256 of the normalized text, in hex.
    pub(crate) fn metadata_key(&self) -> String {
        hex(&Sha256::digest(self.text.as_bytes()))
    }

    /// Returns every text that normalizes to this reference, the normalized one first.
    ///
    /// The index compares spellings exactly, so a look-up of a reference queries all of these. A text that means
    /// another image is not among them: without its registry, `docker.io/localhost/app` would be an image of
    /// `localhost`.
    pub(crate) fn spellings(&self) -> Vec<String> {
        const DEFAULT_REGISTRY: &str = "docker.io/";
        let mut names = vec![self.text.clone()];
        if let Some(path) = self.text.strip_prefix(DEFAULT_REGISTRY) {
            names.push(format!("index.docker.io/{path}"));
            names.push(path.to_owned());
            if let Some(short) = path.strip_prefix("library/") {
                names.extend([
                    format!("docker.io/{short}"),
                    format!("index.docker.io/{short}"),
                    short.to_owned(),
                ]);
            }
        }
        let untagged: Vec<_> =
            names.iter().filter_map(|n| n.strip_suffix(":latest")).map(str::to_owned).collect();
        names.extend(untagged);
        names.retain(|name| name.parse().as_ref() == Ok(self));
        names
    }

    /// Returns every text that means its repository, before a tag or a digest.
    pub(crate) fn repository_spellings(&self) -> Vec<String> {
        // Any tag but the default one, which may be left out.
        let tagged = format!("{}:x", self.repository()).parse::<Self>();
        let spellings = tagged.map(|tagged| tagged.spellings()).unwrap_or_default();
        spellings.iter().filter_map(|text| text.strip_suffix(":x")).map(str::to_owned).collect()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parts = grammar::parse(text).map_err(|fault| ReferenceError::new(text, fault))?;
        let mut normalized = [parts.registry, "/", parts.namespace, parts.repository].concat();
        let repository_len = normalized.len();
        for (separator, part) in [(':', parts.tag), ('@', parts.digest)] {
            if let Some(part) = part {
                normalized.push(separator);
                normalized.push_str(part);
            }
        }
        Ok(Self { text: normalized, repository_len })
    }
}

impl ReferenceError {
    /// Returns the text that is not a reference, cut off if it is long.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong, without the text that it is wrong with.
    pub fn problem(&self) -> String {
        format!("at character {}, {}", self.position, self.expected)
    }

    fn new(text: &str, fault: grammar::Fault) -> Self {
        let (position, expected) = match fault {
            grammar::Fault::Empty => (1, "expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`"),
            grammar::Fault::TooLong => {
                (grammar::MAX_REPOSITORY + 1, "expected the end: a repository has at most 255 characters")
            }
            grammar::Fault::Digest => (after_last(text, '@'), "expected `sha256:` and 64 hex digits"),
            grammar::Fault::Other => first_odd(text),
        };
        Self { text: text.chars().take(80).collect(), position, expected }
    }
}

/// Returns the position after the last `separator`, counted from 1 in characters.
fn after_last(text: &str, separator: char) -> usize {
    text.chars()
        .enumerate()
        .filter(|&(_, character)| character == separator)
        .last()
        .map_or(1, |(index, _)| index + 2)
}

/// Returns the position at which a text is no longer a valid reference, counted from 1 in characters, and the text
/// that was expected there.
fn first_odd(text: &str) -> (usize, &'static str) {
    let mut separated = true;
    // An IPv6 address in brackets.
    let host_len = grammar::bracketed(text).map_or(0, |(address, _)| address.chars().count() + 2);
    for (index, character) in text.chars().enumerate().skip(host_len) {
        let is_separator = matches!(character, '.' | '_' | '-' | '/' | ':' | '@');
        if !character.is_ascii_alphanumeric() && !is_separator {
            return (index + 1, "expected a letter, a digit, or one of `._-/:@`");
        }
        if matches!(character, '/' | ':' | '@') && separated {
            return (index + 1, "expected a letter or a digit");
        }
        separated = is_separator;
    }
    // All of it is ASCII. What is left are capitals: a registry may have them, and a tag.
    let registry_len = text
        .split_once('/')
        .filter(|(first, _)| first.contains(['.', ':']))
        .map_or(0, |(first, _)| first.len());
    let name_len = text[registry_len..].find([':', '@']).map_or(text.len(), |end| registry_len + end);
    match text[registry_len..name_len].find(|character: char| character.is_ascii_uppercase()) {
        Some(index) => {
            (registry_len + index + 1, "expected a lowercase letter: a repository has no capitals")
        }
        None if text.contains('@') => (after_last(text, '@'), "expected `sha256:` and 64 hex digits"),
        None => (text.len() + 1, "expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`"),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A content digest (OCI image specification, descriptor, digests), such as `sha256:` and 64 hex digits.
///
/// Only SHA-256 is accepted: no known home has another algorithm, and every artifact name is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

/// The error for text that is not a content digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits in lowercase")]
pub struct DigestError(String);

impl Digest {
    /// Returns the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    /// Returns the digest of everything that was hashed.
    pub(crate) fn from_hash(hash: Sha256) -> Self {
        Self(format!("sha256:{}", hex(&hash.finalize())))
    }

    /// Returns the whole text, such as `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the digits after the algorithm.
    pub(crate) fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let valid = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned())).ok_or_else(|| DigestError(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest from a row of an index. An invalid text in one row must not stop the processing of the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowDigest {
    /// A digest.
    Known(Digest),
    /// Another text, which names no file.
    Odd(String),
}

impl RowDigest {
    /// Returns the digest, if it is valid.
    pub fn known(&self) -> Option<&Digest> {
        match self {
            Self::Known(digest) => Some(digest),
            Self::Odd(_) => None,
        }
    }

    /// Returns the text as the index has it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(digest) => digest.as_str(),
            Self::Odd(text) => text,
        }
    }
}

impl From<String> for RowDigest {
    fn from(text: String) -> Self {
        text.parse().map_or_else(|_| Self::Odd(text), Self::Known)
    }
}

impl From<RowDigest> for String {
    fn from(digest: RowDigest) -> Self {
        match digest {
            RowDigest::Known(Digest(text)) | RowDigest::Odd(text) => text,
        }
    }
}

impl serde::Serialize for RowDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for RowDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns bytes as lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each spelling of a reference means that reference and no other.
        #[test]
        fn spellings_mean_the_same(text in "((docker\\.io|index\\.docker\\.io|localhost|a\\.b|[Ab]|library)/){0,3}[a-c]{1,2}(:(latest|1))?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let spellings = reference.spellings();
                prop_assert!(spellings.contains(&reference.text));
                for spelling in spellings {
                    prop_assert_eq!(spelling.parse(), Ok(reference.clone()), "{}", spelling);
                }
            }
        }
    }

    /// A reference is normalized as Docker does it, and returns its repository and every spelling.
    #[test]
    fn normal_forms() {
        let table = [
            ("python", "docker.io/library/python:latest", "docker.io/library/python"),
            ("acme/app:v1", "docker.io/acme/app:v1", "docker.io/acme/app"),
            ("index.docker.io/acme/app:v1", "docker.io/acme/app:v1", "docker.io/acme/app"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b"),
            ("Acme/app", "docker.io/Acme/app:latest", "docker.io/Acme/app"),
            ("docker.io/localhost/app:1", "docker.io/localhost/app:1", "docker.io/localhost/app"),
            ("docker.io/a.b/app", "docker.io/a.b/app:latest", "docker.io/a.b/app"),
            (
                "docker.io/library/localhost",
                "docker.io/library/localhost:latest",
                "docker.io/library/localhost",
            ),
        ];
        for (text, normal, repository) in table {
            let reference: Reference = text.parse().expect("a reference");
            assert_eq!((reference.as_str(), reference.repository()), (normal, repository), "{text}");
            let spellings = reference.spellings();
            assert!(spellings.contains(&text.to_owned()), "{text} among {spellings:?}");
            for spelling in spellings {
                assert_eq!(spelling.parse(), Ok(reference.clone()), "{spelling}");
            }
        }
    }

    /// A text that is not a reference is refused with the text, the position in it, and what was expected there.
    #[test]
    fn refusals_name_the_place() {
        let table = [
            ("Bad Ref", "at character 4, expected a letter, a digit, or one of `._-/:@`"),
            ("acme//app", "at character 6, expected a letter or a digit"),
            ("acme/App:V1", "at character 6, expected a lowercase letter: a repository has no capitals"),
            (
                "Registry.io/acme/App",
                "at character 18, expected a lowercase letter: a repository has no capitals",
            ),
            ("acme/app:", "at character 10, expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`"),
            ("", "at character 1, expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`"),
            ("acme/app@sha256:12", "at character 10, expected `sha256:` and 64 hex digits"),
            ("ünïcode", "at character 1, expected a letter, a digit, or one of `._-/:@`"),
        ];
        for (text, expected) in table {
            let message = text.parse::<Reference>().expect_err("no reference").to_string();
            assert_eq!(message, format!("`{text}` is not an image reference: {expected}"));
        }
        let long = format!("{}:1", "a".repeat(300)).parse::<Reference>().expect_err("too long").to_string();
        assert!(long.contains("at character 256") && long.len() < 250, "{long}");
    }
}
