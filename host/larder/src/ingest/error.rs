//! Why an image could not be taken in, in one sentence that names the archive, the layer and the entry.

use std::fmt;
use std::io;
use std::path::PathBuf;

use larder_erofs::EntryPath;

use super::Platform;
use crate::reference::Digest;

/// An image that cannot be taken in. The cache is as it was.
///
/// Shows as one sentence: where it came from, which layer, which entry, and what is wrong with that.
#[derive(Debug)]
pub struct IngestError {
    origin: String,
    layer: Option<Digest>,
    entry: Option<String>,
    /// Boxed, since it is large and errors are rare.
    problem: Box<IngestProblem>,
}

/// What is wrong with an image or with what it comes in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestProblem {
    /// It has neither the `manifest.json` of `docker save` nor the `index.json` of an OCI image layout.
    #[error("it is neither a `docker save` archive nor an OCI image layout")]
    NotAnArchive,

    /// It ends too early.
    #[error("it is cut off")]
    Truncated,

    /// It, or something in it, cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),

    /// Its part of the cache cannot be written.
    #[error("it cannot be written to the cache: {0}")]
    Write(#[source] io::Error),

    /// It is no tar archive, or damaged.
    #[error("it is no valid tar archive: {0}")]
    Tar(String),

    /// A document is not what it should be.
    #[error("`{document}` cannot be read: {why}")]
    Document {
        /// Its name or digest.
        document: String,
        /// What is wrong with it.
        why: String,
    },

    /// Something that is referred to is not there.
    #[error("`{0}` is missing")]
    Missing(String),

    /// The content is not that of its digest.
    #[error("{what} has the digest `{found}` instead of `{expected}`")]
    WrongDigest {
        /// Whose digest, such as `the blob`.
        what: &'static str,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },

    /// The content has another size than its descriptor says.
    #[error("`{what}` has {found} bytes instead of {expected}")]
    WrongSize {
        /// The name or digest of what has it.
        what: String,
        /// The size that was promised.
        expected: u64,
        /// The size of what is there.
        found: u64,
    },

    /// Manifest and config disagree about the number of layers.
    #[error("the manifest has {layers} layers, and the config {diff_ids} diff IDs")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Diff IDs of the config.
        diff_ids: usize,
    },

    /// Something of a kind that is no part of an image, or is not known.
    #[error("the media type `{0}` is not one of an image")]
    MediaType(String),

    /// There is no image for this machine.
    #[error("there is no image for `{wanted}` in it, only for {}", list(.found))]
    Platform {
        /// What this machine runs.
        wanted: Platform,
        /// What there is.
        found: Vec<String>,
    },

    /// An entry of the layer cannot be part of an image.
    #[error("{0}")]
    Entry(String),

    /// A limit of [`IngestLimits`](super::IngestLimits) was exceeded.
    #[error("it exceeds the limit of {limit} {unit}")]
    Limit {
        /// The limit.
        limit: u64,
        /// Of what, such as `bytes in a layer`.
        unit: &'static str,
    },

    /// The image has no name, and none was given.
    #[error("the image `{0}` has no name in it: name it with `--tag`")]
    Unnamed(Digest),

    /// Names were given for several images.
    #[error("it holds {} images, and the given names can be for one only: {}", .0.len(), list(.0))]
    Ambiguous(Vec<String>),

    /// A name in it is not a reference.
    #[error("{0}: name the image with `--tag`")]
    Name(#[from] crate::reference::ReferenceError),

    /// The registry has no image, or no repository, of this name.
    #[error("the registry has no such image")]
    NotInRegistry,

    /// An index that has no image in it.
    #[error("the index `{0}` has no images")]
    EmptyIndex(Digest),

    /// The registry gives it to nobody, or not to whoever asked.
    #[error("the registry refuses it{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Refused(Option<String>),

    /// There is no way to the registry, or it broke off.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),

    /// The registry answers, but not as it should.
    #[error("the registry failed: {0}")]
    Registry(String),

    /// Docker's configuration cannot be used.
    #[error("the credentials in `{}` cannot be used: {why}", .path.display())]
    Credentials {
        /// The configuration.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// The layers cannot be joined to one image.
    #[error("its layers cannot be joined: {0}")]
    Join(String),

    /// The disk of the cache is full.
    #[error("there is no space left for it in the cache")]
    DiskFull,

    /// The caller gave up.
    #[error("it was given up")]
    Cancelled,
}

/// Names in a message, the first of them where there are many.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    quoted.join(", ") + &rest
}

impl IngestProblem {
    /// The problem with what comes from `origin`: the path of an archive or a reference.
    pub(crate) fn of(self, origin: &str) -> IngestError {
        IngestError { origin: origin.to_owned(), layer: None, entry: None, problem: Box::new(self) }
    }

    /// A failure to read. What the readers of this module have to say is carried by the error.
    pub(crate) fn reading(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<Self>().ok());
            return inner.map_or(Self::Truncated, |problem| *problem);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Read(error),
        }
    }

    /// A failure to write to the cache.
    pub(crate) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Write(error),
        }
    }

    /// The problem as an error of a reader: [`reading`](Self::reading) gives it back.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl IngestError {
    /// What the image came in: the path of an archive, or a reference.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The layer by its diff ID, where the problem is in one.
    pub fn layer(&self) -> Option<&Digest> {
        self.layer.as_ref()
    }

    /// The name of the entry of an archive or layer, where the problem is in one.
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// What is wrong.
    pub fn problem(&self) -> &IngestProblem {
        &self.problem
    }

    pub(crate) fn in_layer(mut self, layer: &Digest) -> Self {
        self.layer = Some(layer.clone());
        self
    }

    pub(crate) fn at_entry(mut self, name: &[u8]) -> Self {
        const SHOWN: usize = 256;
        let text = match EntryPath::parse(name) {
            Ok(path) if !path.is_root() => path.to_string(),
            _ => name.escape_ascii().to_string(),
        };
        self.entry = Some(text.chars().take(SHOWN).collect());
        self
    }
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.origin)?;
        if let Some(layer) = &self.layer {
            write!(f, ", layer `{layer}`")?;
        }
        if let Some(entry) = &self.entry {
            write!(f, ", entry `{entry}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for IngestError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message names some of many, and says how many more there are.
    #[test]
    fn lists() {
        let names: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        assert_eq!(list(&names[..2]), "`0`, `1`");
        assert!(list(&names).ends_with("`19` and 99980 more"));
    }
}
