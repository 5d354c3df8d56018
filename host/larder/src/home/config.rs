//! The user's settings of a home, `config.json`: the part that states where the home's directories are.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::{HomePaths, HomeProblem};
use crate::error::slip::in_words;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The maximum size of a document of microsandbox, in bytes.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Config {
    paths: Option<Paths>,
}

#[derive(Deserialize)]
struct Paths {
    cache: Option<PathBuf>,
}

/// Returns the directory of the artifacts in the settings, or `None` if the settings do not name one.
///
/// # Errors
/// [`MicrosandboxError::InvalidConfig`] if the settings are invalid: Larder deletes files in that directory, so
/// it guesses nothing. A relative path is invalid, since it would mean a different directory on each start.
pub(crate) fn cache_dir(paths: &HomePaths) -> MicrosandboxResult<Option<PathBuf>> {
    let path = paths.home.join("config.json");
    let text = read_if_any(&path).map_err(|error| paths.problem(HomeProblem::Unreadable(error)))?;
    let Some(text) = text else { return Ok(None) };
    let invalid = |what: String| MicrosandboxError::InvalidConfig(format!("`{}` {what}", path.display()));
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        invalid(format!("cannot be understood: {}", in_words(&error.to_string(), "an object")))
    })?;
    match config.paths.and_then(|paths| paths.cache) {
        Some(cache) if cache.is_relative() => Err(invalid(format!(
            "sets `paths.cache` to the relative path `{}`: make it absolute",
            cache.display()
        ))),
        cache => Ok(cache),
    }
}

/// Reads a document of settings: a regular file of at most 1 MiB, or `None` if there is nothing of this name. Does not
/// wait for a file of another type.
pub(crate) fn read_if_any(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let file = match opened {
        Ok(file) => File::from(file),
        // What it leads to may be on a disk that is not there now: that is not to say nothing.
        Err(Errno::NOENT) if path.is_symlink() => {
            let problem = format!("`{}` is a symbolic link that leads nowhere", path.display());
            return Err(io::Error::other(problem));
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => {
            let error = io::Error::from(error);
            return Err(io::Error::new(error.kind(), format!("`{}`: {error}", path.display())));
        }
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("`{}` is not a regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("`{}` is larger than 1 MiB", path.display())));
    }
    Ok(Some(text))
}
