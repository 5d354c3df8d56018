//! The local backend: a home of this machine.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Backend, BackendKind};
use crate::artifacts::CacheDir;
use crate::catalog::{Clock, Writer};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::{HomeIdentity, HomePaths, MissingHome, config};
use crate::records::Guard;
use crate::store::Store;

/// The image cache of a home. Cheap to clone; clones share their connections.
///
/// A home is opened with its first use: for reading by whatever reads, for writing by whatever writes, and only
/// the latter takes locks, finishes interrupted deletions and adds Larder's own tables.
///
/// Dropping the last clone closes the home, which may wait for the disk: within a tokio runtime that is done soon after,
/// on a thread that may block; elsewhere, before the drop returns.
#[derive(Clone)]
pub struct LocalBackend {
    store: Arc<Store>,
}

impl LocalBackend {
    /// The home of the user, opened with its first use: `$MSB_HOME`, or else `~/.microsandbox`.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] where neither `MSB_HOME` nor `HOME` is set.
    pub fn lazy() -> MicrosandboxResult<Self> {
        Self::builder().build_lazy()
    }

    /// The home of the user, opened now: `$MSB_HOME`, or else `~/.microsandbox`. One that is missing is made.
    ///
    /// # Errors
    /// As [`LocalBackendBuilder::build`].
    pub async fn new() -> MicrosandboxResult<Self> {
        Self::builder().build().await
    }

    /// Begins a backend with settings of its own.
    pub fn builder() -> LocalBackendBuilder {
        LocalBackendBuilder::default()
    }

    /// The home.
    pub fn home(&self) -> &Path {
        &self.store.catalog().paths().home
    }

    /// Where the artifacts lie: `cache` in the home, unless that was set elsewhere, here or in its `config.json`.
    pub fn cache_dir(&self) -> &Path {
        self.store.cache().root()
    }

    /// Which home this is. Writes nothing: a home that Larder has never changed has no id yet.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn identity(&self) -> MicrosandboxResult<HomeIdentity> {
        let store = Arc::clone(&self.store);
        self.store.read("read which home it is", move |index| Ok(store.keeper(index)?.home().clone())).await
    }

    /// Says that the cache is this home's alone, for an operator who knows that: from now on a prune deletes what no row
    /// of this home owns, also where the cache lies outside of the home or was marked as another's.
    ///
    /// What another home keeps in the cache is deleted with that. An hour is all that protects it.
    ///
    /// # Errors
    /// Where the home or the cache cannot be written.
    pub async fn claim_cache(&self) -> MicrosandboxResult<()> {
        let store = Arc::clone(&self.store);
        let claim = move |writer: &mut Writer, cache: &CacheDir| {
            let claimed = store.keeper(writer.connection())?.claim();
            claimed.map_err(MicrosandboxError::io("mark", cache.root()))
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

/// Settings of a [`LocalBackend`].
#[derive(Clone, Default)]
pub struct LocalBackendBuilder {
    home: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    clock: Option<Clock>,
    missing: MissingHome,
    guard: Guard,
}

impl LocalBackendBuilder {
    /// The home to use. Default: `$MSB_HOME`, or else `~/.microsandbox`. A relative path is one of the directory that
    /// is the current one when the backend is built.
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.home = Some(path.into());
        self
    }

    /// Where the artifacts lie. Default: `paths.cache` of the home's `config.json`, as it is when the backend is built,
    /// or else `cache` in the home. A relative path is taken as that of the home.
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(path.into());
        self
    }

    /// What counts as now, for ages and records. Default: the clock of the system.
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

    /// Makes a missing home an error instead of making it.
    pub fn existing(mut self) -> Self {
        self.missing = MissingHome::Refuse;
        self
    }

    /// The backend, its home opened for reading. One that is missing is made, unless that is
    /// [refused](Self::existing).
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] where no home is set, neither here nor in the environment, and
    /// [`MicrosandboxError::Home`] where it cannot be read or made.
    pub async fn build(self) -> MicrosandboxResult<LocalBackend> {
        let backend = self.build_lazy()?;
        backend.store().read("open the index", |_| Ok(())).await?;
        Ok(backend)
    }

    /// The backend, its home opened with its first use.
    ///
    /// # Errors
    /// [`MicrosandboxError::InvalidConfig`] where no home is set, neither here nor in the environment, and where a
    /// relative path cannot be made absolute or the home's `config.json` cannot be understood, and
    /// [`MicrosandboxError::Home`] where that cannot be read.
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

    /// A relative home and cache are those of the directory in which the backend was built.
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

    /// The settings of a home say where its artifacts lie, unless the embedder does; what cannot be understood is an
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
