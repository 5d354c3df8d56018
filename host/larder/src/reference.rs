//! Names of images and of content, parsed once at the edge.
//!
//! A [`Reference`] is normalized as Docker does it (`python` is `docker.io/library/python:latest`), a [`Digest`]
//! is `ALGORITHM:HEX` as the OCI image specification writes it, and a [`ReferencePattern`] selects references.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as OciReference;
use sha2::{Digest as _, Sha256};

/// A normalized image reference: registry, repository, and tag or digest.
///
/// The index of a home keeps the spelling that was used to pull an image; this is what those spellings mean.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    text: String,
    repository_len: usize,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {expected}")]
pub struct ReferenceError {
    text: String,
    expected: &'static str,
}

impl Reference {
    /// The registry and repository without tag and digest, such as `docker.io/library/python`.
    pub fn repository(&self) -> &str {
        &self.text[..self.repository_len]
    }

    /// The normalized text, such as `docker.io/library/python:latest`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of this reference's metadata in a home: the SHA-256 of the normalized text, in hex.
    pub(crate) fn metadata_key(&self) -> String {
        hex(&Sha256::digest(self.text.as_bytes()))
    }

    /// Every text that normalizes to this reference, the normalized one first.
    ///
    /// The index compares spellings verbatim, so whoever asks for a reference asks for all of these.
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
        names
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        use oci_spec::distribution::ParseError;
        let parsed = OciReference::try_from(text).map_err(|error| ReferenceError {
            text: text.to_owned(),
            expected: match error {
                ParseError::NameEmpty => "it is empty",
                ParseError::NameTooLong => "the repository is longer than 255 characters",
                ParseError::NameContainsUppercase => "the repository has to be lowercase",
                ParseError::DigestInvalidFormat => "the digest has to be `ALGORITHM:HEX`",
                ParseError::DigestInvalidLength => "the digest has the wrong length",
                ParseError::DigestUnsupported => "the digest has an unknown algorithm",
                _ => "expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`",
            },
        })?;
        let repository_len = parsed.registry().len() + 1 + parsed.repository().len();
        Ok(Self { text: parsed.to_string(), repository_len })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A content digest (OCI image specification, descriptor, digests), such as `sha256:` and 64 hex digits.
///
/// Only SHA-256 is accepted: no home was ever seen with another algorithm, and every artifact name is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

/// A text that is not a content digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits in lowercase")]
pub struct DigestError(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(&Sha256::digest(bytes))))
    }

    /// The whole text, such as `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits after the algorithm.
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

/// Bytes in lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
