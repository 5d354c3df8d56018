//! The errors of loading and pulling, each one sentence that names the archive, the layer and the entry.

use std::fmt;
use std::io;
use std::path::PathBuf;

use larder_erofs::EntryPath;

use super::Platform;
use super::limits::{IngestLimits, LimitKey};
use crate::reference::Digest;

/// The error for an image that cannot be loaded or pulled. It is not in the cache.
///
/// It displays as one sentence: the origin, the layer, the entry, and the problem.
#[derive(Debug)]
pub struct IngestError {
    origin: String,
    layer: Option<Digest>,
    entry: Option<String>,
    /// The problem. Boxed because it is large and errors are rare.
    problem: Box<IngestProblem>,
}

/// The problem of an image or its container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestProblem {
    /// It has neither the `manifest.json` of `docker save` nor the `index.json` of an OCI image layout.
    #[error("it is neither a `docker save` archive nor an OCI image layout")]
    NotAnArchive,

    /// The archive has no bytes.
    #[error("it is empty")]
    Empty,

    /// The archive or blob ends too early.
    #[error("it is cut off")]
    Truncated,

    /// The archive, or a part of it, cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),

    /// The image's part of the cache cannot be written.
    #[error("it cannot be written to the cache: {0}")]
    Write(#[source] io::Error),

    /// The archive is not a tar archive, or is damaged.
    #[error("it is no valid tar archive: {0}")]
    Tar(String),

    /// It is compressed in a way that is not read.
    #[error("it is compressed with {0}: decompress it first, or compress it with gzip or zstd")]
    Compression(&'static str),

    /// It needs too much memory to decompress.
    #[error(
        "its zstd window has {} MiB, and at most {} MiB are used: compress it without `--long`, or with `--long=27`",
        .window >> 20, .limit >> 20
    )]
    Window {
        /// The window of a frame, in bytes.
        window: u64,
        /// The largest window that is used, in bytes.
        limit: u64,
    },

    /// A document is invalid.
    #[error("`{document}` cannot be read: {why}")]
    Document {
        /// The name or digest of the document.
        document: String,
        /// The problem.
        why: String,
    },

    /// A file that another refers to does not exist.
    #[error("`{0}` is missing")]
    Missing(String),

    /// The content does not match its digest.
    #[error("{what} has the digest `{found}` instead of `{expected}`")]
    WrongDigest {
        /// The kind of the content, such as `the blob`.
        what: &'static str,
        /// The expected digest.
        expected: Digest,
        /// The digest of the content.
        found: Digest,
    },

    /// The size of the content does not match its descriptor.
    #[error("`{what}` has {found} bytes instead of {expected}")]
    WrongSize {
        /// The name or digest of the content.
        what: String,
        /// The expected size, in bytes.
        expected: u64,
        /// The size of the content, in bytes.
        found: u64,
    },

    /// Manifest and config disagree about the number of layers.
    #[error("the manifest has {layers} layers, and the config {diff_ids} diff IDs")]
    LayerCount {
        /// The number of layers in the manifest.
        layers: usize,
        /// The number of diff IDs in the config.
        diff_ids: usize,
    },

    /// A media type is unknown, or not part of an image.
    #[error("the media type `{0}` is not one of an image")]
    MediaType(String),

    /// There is no image for this machine.
    #[error("there is no image for `{wanted}` in it, only for {}", list(.found))]
    Platform {
        /// The platform of this machine.
        wanted: Platform,
        /// The platforms of the images.
        found: Vec<String>,
    },

    /// An entry of the layer is not allowed in an image.
    #[error("{0}")]
    Entry(String),

    /// A limit of [`IngestLimits`] was exceeded.
    #[error("it exceeds the limit of {limit} {}", .key.what())]
    Limit {
        /// The limit.
        limit: u64,
        /// The name of the limit.
        key: LimitKey,
    },

    /// No image has a name with a repository, and the caller gave none.
    #[error("none of its images has a name with a repository: {}", list(.0))]
    Unnamed(Vec<String>),

    /// There is no image of the name or digest that the caller chose.
    #[error("there is no image `{wanted}` in it, only {}", list(.found))]
    NotInArchive {
        /// The name, tag or digest.
        wanted: String,
        /// The images that there are.
        found: Vec<String>,
    },

    /// There are only members that are no images which can run here. Each is named by its kind.
    #[error("there is no image in it that can run here, only {}", .0.join(", "))]
    NoImage(Vec<String>),

    /// An image has more layers than files that this process can hold at once.
    #[error(
        "it has {layers} layers, and this process can hold {limit} files at once: raise its limit of open files"
    )]
    Files {
        /// The number of layers.
        layers: usize,
        /// The number of files.
        limit: usize,
    },

    /// A damaged layer is not replaced, because an image in use would not fit the new file.
    #[error(
        "the layer `{layer}` is damaged, and `{image}`, which a program uses, would not fit a new one: end what uses it first"
    )]
    Held {
        /// The digest of the image's manifest.
        image: Digest,
        /// The diff ID of the layer.
        layer: Digest,
    },

    /// The caller gave names for several images.
    #[error("it holds {} images, and the given names can be for one only: {}", .0.len(), list(.0))]
    Ambiguous(Vec<String>),

    /// A name that the caller gave has the digest of another manifest.
    #[error("`{reference}` has another digest than its manifest, `{manifest}`")]
    OtherDigest {
        /// The reference.
        reference: String,
        /// The digest of the image's manifest.
        manifest: Digest,
    },

    /// A name in the archive is not a reference.
    #[error("{0}")]
    Name(#[from] crate::reference::ReferenceError),

    /// The registry does not have the image or its repository.
    #[error("the registry has no such image")]
    NotInRegistry,

    /// An index has no images.
    #[error("the index `{0}` has no images")]
    EmptyIndex(Digest),

    /// The registry refuses access, in general or for these credentials.
    #[error("the registry refuses it{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Refused(Option<String>),

    /// The registry could not be reached, or the connection broke.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),

    /// This machine has no certificates of authorities, with which HTTPS is checked.
    #[error(
        "the registry cannot be reached: this machine has no certificates of authorities to check it with"
    )]
    NoAuthorities,

    /// The registry sent an invalid response.
    #[error("the registry failed: {0}")]
    Registry(String),

    /// The registry refuses access, and the credentials for it cannot be used.
    #[error("the registry refuses it, and the credentials in `{}` cannot be used: {why}", .path.display())]
    Credentials {
        /// The path of the file that has them.
        path: PathBuf,
        /// The problem.
        why: String,
    },

    /// The layers cannot be joined.
    #[error("its layers cannot be joined: {0}")]
    Join(String),

    /// The disk of the cache is full.
    #[error("there is no space left for it in the cache")]
    DiskFull,

    /// The disk of the cache has too little space for it. Nothing was read.
    #[error("it needs about {}, and {} are available on the file system of the cache", about(*.needed), about(*.available))]
    NoRoom {
        /// The bytes that it needs, estimated.
        needed: u64,
        /// The bytes that are available.
        available: u64,
    },

    /// The caller cancelled the call.
    #[error("it was given up")]
    Cancelled,
}

/// Returns a size for a message, such as `1.4 GiB`.
fn about(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Returns the names for a message, or only the first of them if there are many.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    quoted.join(", ") + &rest
}

impl IngestProblem {
    /// Returns the error for this problem with `origin`: the path of an archive or a reference.
    pub(crate) fn of(self, origin: &str) -> IngestError {
        IngestError { origin: origin.to_owned(), layer: None, entry: None, problem: Box::new(self) }
    }

    /// Returns the problem of exceeding a limit.
    pub(crate) fn limit(limits: &IngestLimits, key: LimitKey) -> Self {
        Self::Limit { limit: limits.get(key), key }
    }

    /// Returns the problem for an error of reading. Extracts a problem that [`into_io`](Self::into_io) put
    /// into the error.
    pub(crate) fn reading(error: io::Error) -> Self {
        Self::of_io(error, Self::Read)
    }

    /// Returns the problem for an error of writing to the cache. Extracts a problem like [`reading`](Self::reading).
    pub(crate) fn writing(error: io::Error) -> Self {
        Self::of_io(error, Self::Write)
    }

    fn of_io(error: io::Error, otherwise: fn(io::Error) -> Self) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(problem) => return problem,
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => otherwise(error),
        }
    }

    /// Returns the problem as the error of a reader or writer. [`reading`](Self::reading) and [`writing`](Self::writing) return
    /// the problem again.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl IngestError {
    /// Returns the origin of the image: the path of an archive, or a reference.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the diff ID of the layer, if the problem is in one.
    pub fn layer(&self) -> Option<&Digest> {
        self.layer.as_ref()
    }

    /// Returns the name of the entry of an archive or layer, if the problem is in one.
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// Returns the problem.
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
        // What strangers write is in it, and may be as long as a document.
        const SHOWN: usize = 2000;
        let problem = self.problem.to_string();
        match problem.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, ": {}…", &problem[..end]),
            None => write!(f, ": {problem}"),
        }
    }
}

impl std::error::Error for IngestError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message names the first of many names, and states the number of the others.
    #[test]
    fn lists() {
        let names: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        assert_eq!(list(&names[..2]), "`0`, `1`");
        assert!(list(&names).ends_with("`19` and 99980 more"));
    }
}
