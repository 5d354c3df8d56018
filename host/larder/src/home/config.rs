//! The user's settings of a home, `config.json`, as far as they say where its parts lie.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::{HomePaths, HomeProblem};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// More than this is no document of microsandbox's.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Config {
    paths: Option<Paths>,
}

#[derive(Deserialize)]
struct Paths {
    cache: Option<PathBuf>,
}

/// Returns where the settings say that the artifacts lie; none where they don't.
///
/// # Errors
/// [`MicrosandboxError::InvalidConfig`] for settings that cannot be understood: nothing is guessed about where files are
/// that may be deleted. A relative path is one of these, since it would mean another directory with each start.
pub(crate) fn cache_dir(paths: &HomePaths) -> MicrosandboxResult<Option<PathBuf>> {
    let path = paths.home.join("config.json");
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(paths.problem(HomeProblem::Unreadable(error))),
    };
    let invalid = |what: String| MicrosandboxError::InvalidConfig(format!("`{}` {what}", path.display()));
    let config: Config =
        serde_json::from_slice(&text).map_err(|error| invalid(format!("cannot be understood: {error}")))?;
    match config.paths.and_then(|paths| paths.cache) {
        Some(cache) if cache.is_relative() => Err(invalid(format!(
            "sets `paths.cache` to the relative path `{}`: make it absolute",
            cache.display()
        ))),
        cache => Ok(cache),
    }
}

/// Reads a document of microsandbox's: a regular file, without waiting for one that is none, of at most 1 MiB.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::from(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("`{}` is not a regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("`{}` is larger than 1 MiB", path.display())));
    }
    Ok(text)
}
