//! The local backend: a home on this machine.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Backend, BackendKind};
use crate::artifacts::CacheDir;
use crate::artifacts::marker::CacheOwner;
use crate::catalog::{Clock, Writer};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomeIdentity, HomePaths, HomeProblem, MissingHome, config};
use crate::records::Guard;
use crate::store::Store;

/// The image cache of a home. Cheap to clone; clones share their connections.
///
/// The home is opened with its first use: a read opens it for reading, and a write opens it for writing. Only the
/// latter takes locks, finishes interrupted deletions and adds Larder's own tables.
///
/// Dropping the last clone closes the home, which may wait for the disk. Within a tokio runtime, a thread that may
/// block closes it soon after the drop. Elsewhere, it is closed before the drop returns.
#[derive(Clone)]
pub struct LocalBackend {
    store: Arc<Store>,
}

impl LocalBackend {
    /// Returns a backend for the user's home, `$MSB_HOME` or otherwise `~/.microsandbox`. Opens it with its first use.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] if neither `MSB_HOME` nor `HOME` is set.
    pub fn lazy() -> MicrosandboxResult<Self> {
        Self::builder().build_lazy()
    }

    /// Opens the user's home now: `$MSB_HOME`, or otherwise `~/.microsandbox`. Creates it if it is missing.
    ///
    /// # Errors
    /// The same as [`LocalBackendBuilder::build`].
    pub async fn new() -> MicrosandboxResult<Self> {
        Self::builder().build().await
    }

    /// Returns a builder for a backend with its own settings.
    pub fn builder() -> LocalBackendBuilder {
        LocalBackendBuilder::default()
    }

    /// Returns the path of the home.
    pub fn home(&self) -> &Path {
        &self.store.catalog().paths().home
    }

    /// Returns the directory of the artifacts: `cache` in the home, unless the builder or the home's `config.json`
    /// names another one.
    pub fn cache_dir(&self) -> &Path {
        self.store.cache().root()
    }

    /// Returns the identity of this home. Writes nothing: a home that Larder has never changed has no id yet.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn identity(&self) -> MicrosandboxResult<HomeIdentity> {
        let store = Arc::clone(&self.store);
        self.store.read("read which home it is", move |index| store.identity(index)).await
    }

    /// Gives back the memory in which connections to the index keep parts of it, up to some 40 MiB, for a process that does
    /// nothing for a while. The next use reads them again.
    ///
    /// # Errors
    /// Fails if SQLite does.
    pub async fn release_memory(&self) -> MicrosandboxResult<()> {
        self.store.catalog().release_memory().await
    }

    /// Returns the owner that the marker of the cache names. Writes nothing.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn cache_owner(&self) -> MicrosandboxResult<CacheOwner> {
        let store = Arc::clone(&self.store);
        self.store.read("read whose the cache is", move |index| store.cache_owner(index)).await
    }

    /// Records that the cache belongs to this home alone, for an operator who knows that and has seen its
    /// [owner](Self::cache_owner). Creates the cache if it is not there. From now on, a prune deletes files that no row of
    /// this home owns, even if the cache is outside of the home or was marked as another home's, and removes rows whose
    /// files are not there.
    ///
    /// If another home keeps files in the cache, the prune deletes them, too. Only their first hour is protected.
    ///
    /// # Errors
    /// [`CacheOwnerChanged`](HomeProblem::CacheOwnerChanged) if the owner is not `seen`. Fails if the home or the cache
    /// cannot be written.
    pub async fn claim_cache(&self, seen: &CacheOwner) -> MicrosandboxResult<()> {
        let (store, seen) = (Arc::clone(&self.store), seen.clone());
        let claim = move |writer: &mut Writer, cache: &CacheDir| {
            let keeper = store.keeper(writer.connection())?;
            let owner = store.cache_owner(writer.connection())?;
            if owner != seen && owner != CacheOwner::Home(keeper.home().clone()) {
                let cache = cache.root().to_owned();
                return Err(HomeProblem::CacheOwnerChanged { cache }
                    .at(&store.catalog().paths().home)
                    .into());
            }
            keeper.claim().map_err(MicrosandboxError::io("mark", cache.root()))
        };
        self.store.write("claim the cache", claim).await
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.store.now()
    }
}

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend")
            .field("home", &self.home())
            .field("cache_dir", &self.cache_dir())
            .finish()
    }
}

impl Backend for LocalBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }

    fn as_local(&self) -> Option<&LocalBackend> {
        Some(self)
    }
}

impl From<LocalBackend> for Arc<dyn Backend> {
    fn from(backend: LocalBackend) -> Self {
        Arc::new(backend)
    }
}

/// The settings of a [`LocalBackend`] to be built.
#[derive(Clone, Default)]
pub struct LocalBackendBuilder {
    home: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    clock: Option<Clock>,
    missing: MissingHome,
    guard: Guard,
}

impl LocalBackendBuilder {
    /// Sets the home. Default: `$MSB_HOME`, or otherwise `~/.microsandbox`. A relative path is relative to the
    /// directory that is the current one when the backend is built.
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.home = Some(path.into());
        self
    }

    /// Sets the directory of the artifacts. Default: `paths.cache` of the home's `config.json` when the backend is
    /// built, or otherwise `cache` in the home. A relative path is relative to the current directory when the backend
    /// is built.
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(path.into());
        self
    }

    /// Sets the source of the current time, for ages and records. Default: the clock of the system.
    pub fn clock(mut self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// What neither a prune nor a policy removes through this backend, in addition to what `HOME/larder.toml` says.
    /// Default: nothing more.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Makes a missing home an error instead of creating it.
    pub fn existing(mut self) -> Self {
        self.missing = MissingHome::Refuse;
        self
    }

    /// Builds the backend and opens its home for reading. Creates a missing home, unless the builder [refuses
    /// it](Self::existing).
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] if neither the builder nor the environment sets a home, and
    /// [`MicrosandboxError::Home`] if the home cannot be read or created.
    pub async fn build(self) -> MicrosandboxResult<LocalBackend> {
        let backend = self.build_lazy()?;
        backend.store().read("open the index", |_| Ok(())).await?;
        Ok(backend)
    }

    /// Builds the backend, which opens its home with its first use.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] if neither the builder nor the environment sets a home, if a relative path
    /// cannot be made absolute, or if the home's `config.json` is invalid. [`MicrosandboxError::Home`] if `config.json`
    /// cannot be read.
    pub fn build_lazy(self) -> MicrosandboxResult<LocalBackend> {
        let home = match self.home {
            Some(home) => home,
            None => default_home()?,
        };
        let paths = HomePaths::new(absolute("home", home)?);
        let cache = match self.cache_dir {
            Some(cache) => absolute("cache directory", cache)?,
            None => config::cache_dir(&paths)?.unwrap_or_else(|| paths.home.join("cache")),
        };
        let cache = CacheDir::new(cache, paths.home.clone());
        let clock = self.clock.unwrap_or_else(|| Arc::new(Utc::now));
        let store = Store::new(paths, cache, self.missing, clock, self.guard);
        Ok(LocalBackend { store: Arc::new(store) })
    }
}

impl fmt::Debug for LocalBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackendBuilder")
            .field("home", &self.home)
            .field("cache_dir", &self.cache_dir)
            .finish()
    }
}

fn default_home() -> MicrosandboxResult<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MSB_HOME").or_else(|| set("HOME").map(|home| home.join(".microsandbox"))).ok_or_else(|| {
        MicrosandboxError::InvalidConfig(
            "no home is set: set `MSB_HOME`, or `HOME` for `~/.microsandbox`".to_owned(),
        )
    })
}

/// Makes a path absolute, so that it means the same after the current directory was changed.
fn absolute(what: &str, path: PathBuf) -> MicrosandboxResult<PathBuf> {
    std::path::absolute(&path).map_err(|error| {
        MicrosandboxError::InvalidConfig(format!("the {what} `{}` is no path: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relative home and cache are relative to the directory in which the backend was built.
    #[test]
    fn relative_paths_are_made_absolute() {
        let here = env::current_dir().expect("a directory");
        let local = LocalBackend::builder().home("some/home").build_lazy().expect("a backend");
        assert_eq!(
            (local.home(), local.cache_dir()),
            (&*here.join("some/home"), &*here.join("some/home/cache"))
        );
        let local = LocalBackend::builder().home("/home").cache_dir("cache").build_lazy().expect("a backend");
        assert_eq!(local.cache_dir(), here.join("cache"));
        assert!(LocalBackend::builder().home("").build_lazy().is_err());
    }

    /// The settings of a home name the directory of its artifacts, unless the embedder does. Invalid settings are an
    /// error, since files are deleted there.
    #[test]
    fn the_cache_of_a_config() {
        let home = tempfile::tempdir().expect("a directory");
        let cache = |text: &str| {
            std::fs::write(home.path().join("config.json"), text).expect("the settings");
            let local = LocalBackend::builder().home(home.path()).build_lazy();
            local.map(|local| local.cache_dir().to_owned()).map_err(|error| error.to_string())
        };
        assert_eq!(
            cache(r#"{"paths":{"cache":"/big/cache","logs":"/l"},"log_level":"info"}"#),
            Ok("/big/cache".into())
        );
        for unset in ["{}", r#"{"paths":null}"#, r#"{"paths":{"cache":null}}"#] {
            assert_eq!(cache(unset), Ok(home.path().join("cache")), "{unset}");
        }
        for (text, expected) in [
            ("{", "cannot be understood"),
            (r#"{"paths":{"cache":7}}"#, "cannot be understood"),
            (r#"{"paths":{"cache":"big"}}"#, "the relative path `big`: make it absolute"),
        ] {
            let message = cache(text).expect_err("refused");
            assert!(message.contains(expected), "{message}");
        }
        let local = LocalBackend::builder().home(home.path()).cache_dir("/mine").build_lazy();
        assert_eq!(local.expect("a backend").cache_dir(), Path::new("/mine"));
    }
}
