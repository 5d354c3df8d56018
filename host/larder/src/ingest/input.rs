//! The input of a load: a path, or something that is open already.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// An archive or directory of images. What is open has a name for errors.
pub(crate) enum Input {
    Path(PathBuf),
    File { name: String, file: File },
    Reader { name: String, reader: Box<dyn Read + Send> },
}

impl Input {
    /// Returns the name for errors.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::File { name, .. } | Self::Reader { name, .. } => name.clone(),
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
