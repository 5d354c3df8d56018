use std::net::TcpListener;
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
use crate::output;
use crate::service::{Fingerprint, LastRead, Loaded, Parts, Service, Source};
use crate::web::http::{ListenAddress, Server};
use crate::web::metrics::Textfile;
use crate::web::{self, Reload};

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
  larder job start --file /etc/larder/larder.toml --log-format json
  larder job start --listen 9464")]
pub(crate) struct Start {
    #[command(flatten)]
    file: FileArgument,
    #[command(flatten)]
    code_cache: CodeCache,
    /// The form of the log, which goes to standard error
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// Serve a page, metrics and probes on this address: a port of this machine, or an IP address with a port
    #[arg(long, value_name = "ADDR")]
    listen: Option<ListenAddress>,
    /// Write the metrics after each look, for the textfile collector of Prometheus's node exporter
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    textfile: Option<PathBuf>,
}

fn cannot_listen(address: ListenAddress, error: std::io::Error) -> Failure {
    Failure::failed("listen", format!("could not listen on `{address}`"), error)
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

    /// Serves what others look at, until the result is dropped.
    fn serve_web(&self, listener: TcpListener, shown: web::Source) -> Result<Server, Failure> {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("serves a page and metrics on http://{address}/");
        }
        web::http::serve(listener, shown)
            .map_err(|error| Failure::failed("listen", "could not serve the page and the metrics", error))
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
        if let Some(textfile) = &self.textfile {
            output::refuse_in_home(textfile, &local)?;
        }
        let textfile = self.textfile.clone().map(|path| Textfile::new(path, local.clone())).transpose()?;
        // An address that is taken is known before anything runs.
        let listener =
            self.listen.map(|address| address.bind().map_err(|error| cannot_listen(address, error)));
        let listener = listener.transpose()?;
        let source = JobFileSource { file: self.file.clone(), path, engine, local: local.clone(), context };
        let now = clock();
        // Before it is read: a change in between is a later change.
        let fingerprint = Fingerprint::of(source.path());
        let Loaded { file, policies } = source.read().await?;
        let (jobs, shown_jobs) = watch::channel(Arc::new(Jobs::new(local.clone(), file, policies)));
        let (reload, shown_reload) = watch::channel(Reload::succeeded(now));
        let shown = web::Source { local: local.clone(), jobs: shown_jobs, reload: shown_reload };
        let _server = listener.map(|listener| self.serve_web(listener, shown)).transpose()?;
        let service = Parts {
            source,
            textfile,
            local,
            jobs,
            reload,
            last_read: LastRead { fingerprint, at: now, problem: None },
            clock: &clock,
            interrupts,
            hangups,
        };
        Service::new(service).run().await;
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
