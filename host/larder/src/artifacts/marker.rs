//! The marker of a cache, which names the home that owns it.
//!
//! Two homes may share a cache directory, and no row of one home owns what a row of the other owns. So files that no
//! row owns are deleted only if the cache is known to be this home's alone:
//!
//! | the cache is | and has the marker of | files that no row owns |
//! | --- | --- | --- |
//! | in the home | no home, or this home | are deleted |
//! | elsewhere, a symbolic link to it in the home included | this home, at this path | are deleted |
//! | elsewhere | no home, or this home at another path: it was copied or moved | are left |
//! | anywhere | another home, or several | are left |
//!
//! The marker is `.larder-home` in the cache, a small JSON document. The first change of a home makes one, in a cache
//! that is in the home or is empty. A home that adds images to a cache that is not its own alone records in the marker
//! that several homes use it. An operator who knows that the cache belongs to one home can claim it.
//!
//! microsandbox makes no markers: only an operator can know that its homes share a cache with the home that a marker
//! names. A marker does not protect files that rows of *this* home own: removing an image deletes its files, even if a
//! row of another home names them as well. microsandbox does the same.
//!
//! # A cache that is not there
//! A cache without this home's marker and without any file that the index names may be the mount point of a disk that is
//! not mounted, whatever else is in it: a home whose index names files does not mark it, adds nothing to it, and removes
//! nothing there.
//!
//! # What survives a crash
//! A marker is whole or missing. It is on disk before anything relies on it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::plain::{read_at, without_temporary_name};
use super::unowned::{Unowned, UnownedKind};
use super::{CacheDir, open_dir};
use crate::error::slip::in_words;
use crate::home::{HomeId, HomeIdentity};

/// The name of the marker in a cache.
const MARKER: &str = ".larder-home";
/// The maximum size of a marker, in bytes.
const MAX_BYTES: u64 = 1 << 16;

/// The content of a marker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The home that owns the cache, or none if several homes use it.
    home: Option<HomeIdentity>,
}

/// The owner of a cache, as its marker names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheOwner {
    /// The cache has no marker.
    Nobody,
    /// The cache is not there: it has no marker, and none of the files that the index names.
    Missing,
    /// The cache is marked as this home's alone.
    Home(HomeIdentity),
    /// The cache is marked as used by several homes.
    Several,
    /// The marker cannot be read. The text says why.
    Unreadable(String),
}

/// The ownership of a cache, as far as a home can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Custody {
    /// The cache is the home's alone.
    Ours,
    /// The cache may belong to another home as well. The text is a sentence with the reason.
    NotOurs(String),
}

/// A check of a cache's ownership, which can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    root: PathBuf,
    home: HomeIdentity,
    is_inside: bool,
}

impl CacheDir {
    /// Returns the keeper of this cache for the home with this id.
    ///
    /// # Errors
    /// Fails if the place of the cache or of the home cannot be found out.
    pub(crate) fn keeper(&self, id: Option<HomeId>) -> io::Result<Keeper> {
        let is_inside = self.is_inside()?;
        Ok(Keeper { root: self.root.clone(), home: HomeIdentity::new(id, &self.home), is_inside })
    }

    /// Returns whether the cache is in the home, and no symbolic link leads elsewhere.
    fn is_inside(&self) -> io::Result<bool> {
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match self.root.canonicalize() {
            Ok(root) => match self.home.canonicalize() {
                Ok(home) => Ok(root.starts_with(home)),
                Err(error) if is_missing(&error) => Ok(false),
                Err(error) => Err(error),
            },
            // A link that leads to nothing leads elsewhere; what does not exist at all is no link.
            Err(error) if is_missing(&error) => match self.root.symlink_metadata() {
                Ok(_) => Ok(false),
                Err(error) if is_missing(&error) => Ok(self.root.starts_with(&self.home)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

impl Custody {
    /// Returns what was found in the cache. If the cache is not the home's alone, every old file is moved to the files that
    /// are left.
    pub(crate) fn judge(&self, mut found: Unowned) -> Unowned {
        if *self != Self::Ours {
            let old = std::mem::take(&mut found.old).into_iter();
            found.left.extend(old.map(|mut file| {
                file.kind = UnownedKind::NotOurs;
                file
            }));
            found.left.sort_by(|a, b| a.path.cmp(&b.path));
        }
        found
    }
}

impl Keeper {
    /// Returns the home that the check is for.
    pub(crate) fn home(&self) -> &HomeIdentity {
        &self.home
    }

    /// Returns whether the marker names this home, at whatever path.
    pub(crate) fn is_marked_as_ours(&self) -> bool {
        matches!(self.owner(), CacheOwner::Home(home) if self.is_meant_by(&home))
    }

    /// Returns whether an identity from a marker means this home. One without an id means no home for certain.
    fn is_meant_by(&self, marked: &HomeIdentity) -> bool {
        marked.id.is_some() && marked.names(&self.home)
    }

    /// Returns the owner that the marker names at this moment.
    pub(crate) fn owner(&self) -> CacheOwner {
        match self.read() {
            Ok(None) => CacheOwner::Nobody,
            Ok(Some(Marker { home: Some(home) })) => CacheOwner::Home(home),
            Ok(Some(Marker { home: None })) => CacheOwner::Several,
            Err(error) => CacheOwner::Unreadable(error.to_string()),
        }
    }

    /// Returns the ownership of the cache at this moment.
    pub(crate) fn custody(&self) -> Custody {
        self.judge(self.owner())
    }

    /// Returns the ownership of a cache with this owner.
    fn judge(&self, owner: CacheOwner) -> Custody {
        let not_ours = |why: String| Custody::NotOurs(format!("the cache `{}` {why}", self.root.display()));
        match owner {
            CacheOwner::Nobody if self.is_inside => Custody::Ours,
            CacheOwner::Nobody | CacheOwner::Missing => {
                not_ours("lies outside of the home, and nothing says that no other home uses it".to_owned())
            }
            CacheOwner::Home(home) if self.is_meant_by(&home) => {
                if self.is_inside || home.path == self.home.path {
                    Custody::Ours
                } else {
                    not_ours(format!(
                        "is that of this home at `{}`, from where it was copied or moved",
                        home.path
                    ))
                }
            }
            CacheOwner::Home(home) => not_ours(format!("is that of the home `{}`", home.path)),
            CacheOwner::Several => not_ours("is used by several homes".to_owned()),
            CacheOwner::Unreadable(error) => {
                not_ours(format!("has a marker `{MARKER}` that cannot be read: {error}"))
            }
        }
    }

    /// Marks the cache as this home's if it has no marker and is certainly this home's: it is in the home, or is empty.
    /// Does nothing if the directory does not exist yet.
    pub(crate) fn claim_if_free(&self) -> io::Result<()> {
        if self.home.id.is_none() || !self.root.is_dir() || self.read()?.is_some() {
            return Ok(());
        }
        if self.is_inside || fs::read_dir(&self.root)?.next().is_none() {
            return self.make(Some(&self.home));
        }
        Ok(())
    }

    /// Marks the cache before this home adds images to it. Marks it as this home's if it has no marker and is certainly
    /// this home's. Otherwise marks it as used by several homes, unless it is this home's already.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.make_root()?;
        self.claim_if_free()?;
        // Read once: a marker that cannot be read is an error, and not that of another home.
        match self.read()?.map(|marker| marker.home) {
            None => self.make(None),
            Some(None) => Ok(()),
            Some(Some(home)) => match self.judge(CacheOwner::Home(home)) {
                Custody::Ours => Ok(()),
                Custody::NotOurs(_) => self.replace(None),
            },
        }
    }

    /// Marks the cache as this home's, whatever its marker was before.
    pub(crate) fn claim(&self) -> io::Result<()> {
        self.make_root()?;
        self.replace(Some(&self.home))
    }

    /// Makes the directory of the cache, if it does not exist.
    fn make_root(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root).map_err(|error| match fs::read_link(&self.root) {
            Ok(target) if !self.root.exists() => io::Error::other(format!(
                "it is a symbolic link to `{}`, which is not there: mount the disk that has it, make that directory, or \
                 remove the link",
                target.display()
            )),
            _ => error,
        })
    }

    fn read(&self) -> io::Result<Option<Marker>> {
        let Some(directory) = open_dir(&self.root)? else { return Ok(None) };
        match read_at(&directory, MARKER.as_ref(), MAX_BYTES) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| io::Error::other(in_words(&error.to_string(), "an object"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the marker, unless another process has created one meanwhile.
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
        let mut file = name.tempfile_in(&self.root).map_err(without_temporary_name)?;
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
        let cache = CacheDir::new(root.to_owned(), home.to_owned());
        cache.keeper(Some(id.repeat(32).parse().expect("an id"))).expect("a keeper")
    }

    /// Each row of the table in the module's header holds.
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
        assert!(!ours(&CacheDir::new(path("a/cache"), path("a")).keeper(None).expect("a keeper")));

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

    /// A home that adds images to a cache that is not its own alone records it, in either order of the homes.
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
