//! Whose a cache is.
//!
//! Two homes may share a cache directory, and what a row of one home owns is owned by no row of the other. So what no
//! row owns is deleted only where the cache is known to be this home's alone:
//!
//! | the cache | with the marker of | what no row owns |
//! | --- | --- | --- |
//! | in the home | nobody, or this home | is deleted |
//! | elsewhere, a symbolic link to it in the home included | this home, at this path | is deleted |
//! | elsewhere | nobody, or this home at another path: it was copied or moved | is left |
//! | anywhere | another home, or several | is left |
//!
//! The marker is `.larder-home` in the cache, a small JSON document. The first change of a home makes one, in a cache that
//! lies in the home or is empty. A home that takes images into a cache that is not its own alone writes into the marker
//! that several use it. An operator who knows better claims the cache for a home.
//!
//! microsandbox makes no markers: where its homes share a cache with the home that a marker names, an operator has to know.
//! Nor does a marker protect what rows of *this* home own: removing an image deletes its files, though a row of another
//! home names them as well. microsandbox does the same.
//!
//! # What survives a crash
//! A marker is whole or not there, and on disk before anything relies on it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::plain::read_at;
use super::unowned::{Unowned, UnownedKind};
use super::{CacheDir, open_dir};
use crate::home::{HomeId, HomeIdentity};

/// The name of the marker in a cache.
const MARKER: &str = ".larder-home";
/// More than this is no marker, in bytes.
const MAX_BYTES: u64 = 1 << 16;

/// The content of a marker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The home whose cache it is; none where several homes use it.
    home: Option<HomeIdentity>,
}

/// Whose a cache is, as far as a home can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Custody {
    /// The home's alone.
    Ours,
    /// Perhaps another home's as well. A sentence says what speaks for that.
    NotOurs(String),
}

/// Tells whose a cache is, again and again.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    root: PathBuf,
    home: HomeIdentity,
    is_inside: bool,
}

impl CacheDir {
    /// The keeper of this cache for the home that it was opened with.
    pub(crate) fn keeper(&self, id: Option<HomeId>) -> Keeper {
        let home = self.home.canonicalize();
        let is_inside = match (self.root.canonicalize(), &home) {
            (Ok(root), Ok(home)) => root.starts_with(home),
            // What does not exist yet is no link to elsewhere.
            (Err(_), Ok(_)) => self.root.starts_with(&self.home),
            _ => false,
        };
        Keeper { root: self.root.clone(), home: HomeIdentity::new(id, &self.home), is_inside }
    }
}

impl Keeper {
    /// The home that asks.
    pub(crate) fn home(&self) -> &HomeIdentity {
        &self.home
    }

    /// Returns whose the cache is at this moment.
    pub(crate) fn custody(&self) -> Custody {
        let not_ours = |why: String| Custody::NotOurs(format!("the cache `{}` {why}", self.root.display()));
        match self.read() {
            Ok(None) if self.is_inside => Custody::Ours,
            Ok(None) => {
                not_ours("lies outside of the home, and nothing says that no other home uses it".to_owned())
            }
            Ok(Some(Marker { home: Some(home) })) if home.id.is_some() && home.names(&self.home) => {
                if self.is_inside || home.path == self.home.path {
                    Custody::Ours
                } else {
                    not_ours(format!(
                        "is that of this home at `{}`, from where it was copied or moved",
                        home.path
                    ))
                }
            }
            Ok(Some(Marker { home: Some(home) })) => not_ours(format!("is that of the home `{}`", home.path)),
            Ok(Some(Marker { home: None })) => not_ours("is used by several homes".to_owned()),
            Err(error) => not_ours(format!("has a marker `{MARKER}` that cannot be read: {error}")),
        }
    }

    /// Returns what was found, with nothing to be deleted where the cache is not the home's alone.
    pub(crate) fn judge(&self, mut found: Unowned) -> Unowned {
        if self.custody() != Custody::Ours {
            let old = std::mem::take(&mut found.old).into_iter();
            found.left.extend(old.map(|mut file| {
                file.kind = UnownedKind::NotOurs;
                file
            }));
            found.left.sort_by(|a, b| a.path.cmp(&b.path));
        }
        found
    }

    /// Marks the cache as this home's, where it has no marker and is certainly this home's: it lies in the home, or is
    /// empty. Does nothing where there is no directory yet.
    pub(crate) fn claim_if_free(&self) -> io::Result<()> {
        if self.home.id.is_none() || !self.root.is_dir() || self.read()?.is_some() {
            return Ok(());
        }
        if self.is_inside || fs::read_dir(&self.root)?.next().is_none() {
            return self.make(Some(&self.home));
        }
        Ok(())
    }

    /// Marks the cache before this home takes images into it: as this home's where it has no marker and is certainly
    /// that, and otherwise, unless it is this home's, as used by several.
    pub(crate) fn enter(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        self.claim_if_free()?;
        match self.read()? {
            None => self.make(None)?,
            Some(Marker { home: None }) => {}
            Some(Marker { home: Some(_) }) if self.custody() == Custody::Ours => {}
            Some(Marker { home: Some(_) }) => self.replace(None)?,
        }
        Ok(())
    }

    /// Marks the cache as this home's, whatever it was before.
    pub(crate) fn claim(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        self.replace(Some(&self.home))
    }

    fn read(&self) -> io::Result<Option<Marker>> {
        let Some(directory) = open_dir(&self.root)? else { return Ok(None) };
        match read_at(&directory, MARKER.as_ref(), MAX_BYTES) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the marker, unless another process has made one meanwhile.
    fn make(&self, home: Option<&HomeIdentity>) -> io::Result<()> {
        match self.write(home)?.persist_noclobber(self.root.join(MARKER)) {
            Ok(_) => self.sync(),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.error),
        }
    }

    fn replace(&self, home: Option<&HomeIdentity>) -> io::Result<()> {
        self.write(home)?.persist(self.root.join(MARKER)).map_err(|error| error.error)?;
        self.sync()
    }

    /// Writes a marker to disk under a temporary name.
    fn write(&self, home: Option<&HomeIdentity>) -> io::Result<NamedTempFile> {
        let mut name = tempfile::Builder::new();
        // Whoever may read the cache may know whose it is.
        let name = name.prefix(".larder-home-").permissions(Permissions::from_mode(0o644));
        let mut file = name.tempfile_in(&self.root)?;
        let text = serde_json::to_vec(&Marker { home: home.cloned() }).map_err(io::Error::other)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn keeper(root: &Path, home: &Path, id: &str) -> Keeper {
        CacheDir::new(root.to_owned(), home.to_owned()).keeper(Some(id.repeat(32).parse().expect("an id")))
    }

    /// Each row of the table in the module's header.
    #[test]
    fn whose_a_cache_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["a/cache", "b", "copy", "elsewhere", "used/layers"] {
            fs::create_dir_all(path(name)).expect("a directory");
        }
        symlink(path("used"), path("b/cache")).expect("a link");
        let ours = |keeper: &Keeper| keeper.custody() == Custody::Ours;

        let inside = keeper(&path("a/cache"), &path("a"), "a");
        assert!(ours(&inside));
        inside.claim_if_free().expect("claimed");
        assert!(ours(&inside) && ours(&keeper(&path("a/cache"), &path("a"), "a")));
        assert!(!ours(&keeper(&path("a/cache"), &path("b"), "b")));
        assert!(!ours(&keeper(&path("a/cache"), &path("a"), "b")), "an index of another home");
        assert!(!ours(&CacheDir::new(path("a/cache"), path("a")).keeper(None)));

        // A link leads out of the home, and to what may be another home's.
        let linked = keeper(&path("b/cache"), &path("b"), "b");
        linked.claim_if_free().expect("nothing");
        assert!(!ours(&linked) && !path("used").join(MARKER).exists());
        linked.claim().expect("claimed");
        assert!(ours(&linked));

        // An empty directory is claimed; a copy of the home has no claim to it.
        let elsewhere = keeper(&path("elsewhere"), &path("a"), "a");
        assert!(!ours(&elsewhere));
        elsewhere.claim_if_free().expect("claimed");
        let copy = keeper(&path("elsewhere"), &path("copy"), "a");
        assert!(ours(&elsewhere) && !ours(&copy));
        fs::write(path("elsewhere").join(MARKER), "?").expect("a marker");
        assert!(!ours(&elsewhere));
    }

    /// A home that takes images into a cache that is not its own alone says so, whoever was first.
    #[test]
    fn entering() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/cache/layers")).expect("a directory");
        fs::create_dir_all(path("b")).expect("a directory");
        let first = keeper(&path("a/cache"), &path("a"), "a");
        let second = keeper(&path("a/cache"), &path("b"), "b");
        second.enter().expect("entered");
        assert!(first.custody() != Custody::Ours && second.custody() != Custody::Ours);
        first.claim().expect("claimed");
        first.enter().expect("entered");
        assert_eq!(first.custody(), Custody::Ours);
        second.enter().expect("entered");
        assert!(first.custody() != Custody::Ours);
        let new = keeper(&path("new"), &path("b"), "b");
        new.enter().expect("entered");
        assert_eq!(new.custody(), Custody::Ours);
    }
}
