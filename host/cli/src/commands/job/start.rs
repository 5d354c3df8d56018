use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder::LocalBackend;
use larder::job::{FileSystemStatus, Findings, Jobs};
use larder::policy::PolicyEngine;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::check::findings;
use super::policies::NamedPolicies;
use super::{FileArgument, refused};
use crate::cli::Context;
use crate::engine::CodeCache;
use crate::exit::{Failure, Status};
use crate::logging::LogFormat;
use crate::service::{Fingerprint, Loaded, Reload, Service, Source};

/// Run jobs by themselves, until the program is asked to end
///
/// A job runs when its schedule is due or a bound is passed, one at a time in a home. What was missed while nothing ran is
/// one run, late. A job that fails is tried again later, and stops no other.
///
/// The job file is read again when it changes, and on `SIGHUP`. A file that cannot be used leaves the jobs as they are.
/// `SIGTERM` and Ctrl-C end the program when the images that are being removed are gone, with status 0.
///
/// The log has a line for each run. A service manager that sets `NOTIFY_SOCKET` is told what the program is up to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job start
  larder job start --file /etc/larder/larder.toml --log-format json")]
pub(crate) struct Start {
    #[command(flatten)]
    file: FileArgument,
    #[command(flatten)]
    code_cache: CodeCache,
    /// The form of the log, which goes to standard error
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
}

impl Start {
    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Runs the service. What ends it goes to its log, as everything does.
    pub(crate) async fn run(self, context: &Context) -> Status {
        match self.serve(context).await {
            Ok(()) => Status::Done,
            Err(failure) => {
                let text = failure.messages().collect::<Vec<_>>().join(": ");
                text.lines().for_each(|line| tracing::error!("{line}"));
                if let Some(hint) = failure.hint() {
                    tracing::info!("hint: {hint}");
                }
                failure.status()
            }
        }
    }

    async fn serve(self, context: &Context) -> Result<(), Failure> {
        // From here on, a signal ends nothing half done.
        let interrupts = context.interrupts()?;
        let hangups = signal(SignalKind::hangup())
            .map_err(|error| Failure::failed("signals", "could not listen for signals", error))?;
        let local = context.open().await?;
        let path = self.file.path(&local);
        let engine = self.code_cache.engine()?;
        let clock = || context.now();
        let source = JobFileSource { file: self.file, path, engine, local: local.clone(), context };
        let (watched, now) = (local.clone(), clock());
        // Before it is read: a change in between is a later change.
        let fingerprint = Fingerprint::of(source.path());
        let Loaded { file, policies } = source.read().await?;
        let (jobs, _) = watch::channel(Arc::new(Jobs::new(local, file, policies)));
        let (reload, _) = watch::channel(Reload { fingerprint, at: now, used_since: now, problem: None });
        Service::new(source, watched, jobs, reload, &clock, interrupts, hangups).run().await;
        Ok(())
    }
}

/// The job file that the arguments name.
struct JobFileSource<'a> {
    file: FileArgument,
    path: PathBuf,
    engine: PolicyEngine,
    local: LocalBackend,
    context: &'a Context,
}

impl Source for JobFileSource<'_> {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn read(&self) -> Result<Loaded, Failure> {
        let read = self.file.read(&self.local)?;
        let fs = FileSystemStatus::of(self.local.cache_dir())?;
        let found = findings(&self.engine, &read, &fs, self.context.now()).await;
        if !found.is_empty() {
            let all: Findings = found.into_iter().chain(read.file.warnings).collect();
            return Err(refused(&read.path, &all));
        }
        for warning in &read.file.warnings {
            tracing::warn!("{}", super::line(&read.path, warning));
        }
        let policies = NamedPolicies::new(self.engine.clone(), read.path);
        Ok(Loaded { file: read.file, policies })
    }
}
