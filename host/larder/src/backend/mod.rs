//! The choice of the backend that the image API uses.
//!
//! The ambient calls ([`Image::list`](crate::Image::list) and the others) use [`default_backend`], which is the
//! first of these that exists:
//!
//! 1. the backend of the [`with_backend`] scope around the current task;
//! 2. the backend that [`set_default_backend`] installed;
//! 3. the one that `MSB_BACKEND` names: `local`, or `cloud`, which needs `MSB_API_KEY`;
//! 4. the local backend of the user's home ([`LocalBackend::lazy`]).
//!
//! The choice of 3 and 4 is made once and kept. An invalid configuration is kept as well: every call fails with
//! its error, and no call falls back to the local cache, which the user did not ask for.
//!
//! No other part of the library reads the environment.

mod cloud;
mod local;

use std::env;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

pub use cloud::CloudBackend;
pub use local::{LocalBackend, LocalBackendBuilder};

pub use crate::artifacts::marker::CacheOwner;
pub use crate::home::{HomeError, HomeProblem};

use crate::error::{MicrosandboxError, MicrosandboxResult, Operation};

/// The kinds of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// A home on this machine.
    Local,
    /// A service, which has no local image cache.
    Cloud,
}

/// The place of sandboxes and their images.
pub trait Backend: Send + Sync + 'static {
    /// Returns the kind.
    fn kind(&self) -> BackendKind;

    /// Returns the local backend, if this is one.
    fn as_local(&self) -> Option<&LocalBackend> {
        None
    }

    /// Returns the local backend, for an operation that needs one.
    ///
    /// # Errors
    /// [`MicrosandboxError::Unsupported`] on any other backend, or the configuration error if the configuration
    /// is invalid.
    fn local_for(&self, op: Operation) -> MicrosandboxResult<&LocalBackend> {
        self.as_local().ok_or_else(|| MicrosandboxError::local_only(op))
    }
}

/// A placeholder for a configuration from which no backend can be made.
struct MisconfiguredBackend {
    problem: String,
    kind: BackendKind,
}

impl Backend for MisconfiguredBackend {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn local_for(&self, _op: Operation) -> MicrosandboxResult<&LocalBackend> {
        Err(MicrosandboxError::InvalidConfig(self.problem.clone()))
    }
}

static DEFAULT: RwLock<Option<Arc<dyn Backend>>> = RwLock::new(None);

tokio::task_local! {
    static SCOPED: Arc<dyn Backend>;
}

/// Returns the backend that ambient calls use. See the [module](self) for the choice.
pub fn default_backend() -> Arc<dyn Backend> {
    if let Ok(scoped) = SCOPED.try_with(Arc::clone) {
        return scoped;
    }
    // A poisoned lock still holds a whole backend: replacing an `Arc` cannot stop half-way.
    if let Some(installed) = &*DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
        return Arc::clone(installed);
    }
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(default.get_or_insert_with(|| from_environment(|name| env::var(name).ok())))
}

/// Installs the backend that ambient calls of this process use.
pub fn set_default_backend(backend: impl Into<Arc<dyn Backend>>) {
    *DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = Some(backend.into());
}

/// Runs a future whose ambient calls use `backend`. Tasks that it spawns are outside of that scope.
pub async fn with_backend<F: Future>(backend: impl Into<Arc<dyn Backend>>, future: F) -> F::Output {
    SCOPED.scope(backend.into(), future).await
}

fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Arc<dyn Backend> {
    let set =
        |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let misconfigured =
        |kind, problem: String| -> Arc<dyn Backend> { Arc::new(MisconfiguredBackend { problem, kind }) };
    match set("MSB_BACKEND").as_deref() {
        Some("cloud") if set("MSB_API_KEY").is_some() => Arc::new(CloudBackend::new()),
        Some("cloud") => misconfigured(
            BackendKind::Cloud,
            "`MSB_BACKEND=cloud` needs an API key: set `MSB_API_KEY`, or `MSB_BACKEND=local`".to_owned(),
        ),
        Some("local") | None => match LocalBackend::lazy() {
            Ok(local) => Arc::new(local),
            Err(error) => misconfigured(BackendKind::Local, error.to_string()),
        },
        Some(other) => misconfigured(
            BackendKind::Local,
            format!("`MSB_BACKEND={other}` names no backend: set it to `local` or `cloud`"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    /// The environment selects the backend, and an invalid value fails instead of falling back.
    #[test]
    fn the_environment_selects() {
        let error = |variables: &[(&str, &str)]| match from_environment(environment(variables))
            .local_for(Operation::ImageList)
        {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let kind = |variables: &[(&str, &str)]| from_environment(environment(variables)).kind();
        assert_eq!(kind(&[("MSB_HOME", "/h")]), BackendKind::Local);
        assert_eq!(kind(&[("MSB_BACKEND", "cloud"), ("MSB_API_KEY", "k")]), BackendKind::Cloud);
        assert_eq!(error(&[("MSB_BACKEND", " local ")]), "");
        assert_eq!(
            error(&[("MSB_BACKEND", "cloud"), ("MSB_API_KEY", "k")]),
            "Image::list is not supported by this backend: use a local backend"
        );
        assert!(error(&[("MSB_BACKEND", "cloud")]).contains("set `MSB_API_KEY`"));
        assert!(error(&[("MSB_BACKEND", "clud")]).contains("names no backend"));
    }

    /// A scope wins over the installed backend, and ends with its future.
    #[tokio::test]
    async fn a_scope_wins() {
        set_default_backend(LocalBackend::builder().home("/nonexistent").build_lazy().expect("a backend"));
        assert_eq!(default_backend().kind(), BackendKind::Local);
        let inside = with_backend(CloudBackend::new(), async { default_backend().kind() }).await;
        assert_eq!(inside, BackendKind::Cloud);
        assert_eq!(default_backend().kind(), BackendKind::Local);
    }
}
