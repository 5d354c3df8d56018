//! Where figures come from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use larder::job::Jobs;
use larder::plan::{Overview, Usage};
use larder::{LocalBackend, MicrosandboxError, MicrosandboxResult};
use tokio::sync::watch;

/// For so long a measurement of the cache is not repeated.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// For so long the first measurement is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a service shows.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The home.
    pub(crate) local: LocalBackend,
    /// The jobs of the file that was read last.
    pub(crate) jobs: watch::Receiver<Arc<Jobs>>,
    /// What became of the last reload of that file.
    pub(crate) reload: watch::Receiver<Reload>,
}

/// What became of the last reload of a job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reload {
    /// The result of the last one.
    pub(crate) outcome: ReloadOutcome,
    /// When one last succeeded. The first reading of the file counts.
    pub(crate) succeeded_at: DateTime<Utc>,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// The jobs are those of the file as it is.
    Succeeded,
    /// The file could not be used, and the jobs are those of an earlier one.
    Failed,
}

impl Reload {
    /// Returns a reload that succeeded.
    pub(crate) fn succeeded(at: DateTime<Utc>) -> Self {
        Self { outcome: ReloadOutcome::Succeeded, succeeded_at: at }
    }

    /// Returns the same after a reload that failed.
    #[must_use]
    pub(crate) fn failed(self) -> Self {
        Self { outcome: ReloadOutcome::Failed, ..self }
    }
}

/// What the files of the cache take.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) usage: Usage,
    /// By repository, with the instant of the measurement.
    pub(crate) overview: Overview,
}

impl Measured {
    /// Measures the cache: looks at each of its files twice.
    pub(crate) async fn now(local: &LocalBackend) -> MicrosandboxResult<Self> {
        Ok(Self { usage: local.usage().await?, overview: local.overview().await? })
    }
}

/// The last measurement of the cache. It is made once at a time, by whoever asks first, and again when it is old: who asks
/// then gets the old one at once.
#[derive(Debug)]
pub(super) struct Measurements {
    local: LocalBackend,
    last: Mutex<Option<(Arc<Measured>, Instant)>>,
    /// Held while the cache is measured.
    measuring: Arc<tokio::sync::Mutex<()>>,
}

impl Measurements {
    pub(super) fn new(local: LocalBackend) -> Arc<Self> {
        Arc::new(Self { local, last: Mutex::default(), measuring: Arc::default() })
    }

    /// Returns the last measurement, or why there is none. Makes the first one, and waits for it, but not for long.
    pub(super) async fn latest(self: &Arc<Self>) -> Result<Arc<Measured>, String> {
        match tokio::time::timeout(PATIENCE, self.complete()).await {
            Ok(measured) => measured.map_err(|error| error.to_string()),
            Err(_) => Err("it is being measured for the first time".to_owned()),
        }
    }

    /// Returns the last measurement. Makes the first one, and waits for it.
    pub(super) async fn complete(self: &Arc<Self>) -> MicrosandboxResult<Arc<Measured>> {
        if let Some((measured, at)) = self.last() {
            if at.elapsed() >= KEPT
                && let Ok(measuring) = Arc::clone(&self.measuring).try_lock_owned()
            {
                drop(self.measure(measuring));
            }
            return Ok(measured);
        }
        let measuring = Arc::clone(&self.measuring).lock_owned().await;
        // Whoever measured meanwhile did it for this one, too.
        if let Some((measured, _)) = self.last() {
            return Ok(measured);
        }
        let measured = self.measure(measuring).await;
        measured.unwrap_or_else(|_| Err(MicrosandboxError::Stopped))
    }

    /// Measures on a task of its own, which goes on when nobody waits for it any longer.
    fn measure(
        self: &Arc<Self>,
        measuring: tokio::sync::OwnedMutexGuard<()>,
    ) -> tokio::task::JoinHandle<MicrosandboxResult<Arc<Measured>>> {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _measuring = measuring;
            let measured = Arc::new(Measured::now(&this.local).await?);
            *this.last.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Arc::clone(&measured), Instant::now()));
            Ok(measured)
        })
    }

    fn last(&self) -> Option<(Arc<Measured>, Instant)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
