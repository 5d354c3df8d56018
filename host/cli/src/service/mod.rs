//! The service: jobs that run by themselves.
//!
//! It is a loop: it looks at the jobs ([`Jobs::tick`]), which runs what is due, and sleeps until the next look. It never
//! sleeps for long, since the clock may be changed, the machine may be suspended, and the job file may change meanwhile.
//!
//! - `source.rs`: when the job file is read again, and what came of it
//! - `manager.rs`: what the service manager is told, and its watchdog
//! - `log.rs`: the line of a run
//! - `memory.rs`: giving memory back
//!
//! # Reloading
//! The job file is read again on `SIGHUP`, and when another file is found at its path. A file that cannot be used leaves
//! the jobs as they are, and is said once.
//!
//! # Stopping
//! An interrupt ends a run as [`Jobs::tick`] says: the images that are being removed still go, and the run is on record.
//!
//! # What survives a crash
//! The service remembers nothing: when jobs ran is in the home. What it has said is said again by the next one.

mod log;
mod manager;
mod memory;
mod source;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use larder::LocalBackend;
use larder::job::{Jobs, Tick};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

pub(crate) use source::{Fingerprint, LastRead, Loaded, Source};

use self::manager::Manager;
use crate::exit::Failure;
use crate::interrupt::Interrupts;
use crate::render::count;
use crate::web::Reload;
use crate::web::metrics::Textfile;

/// The longest sleep. It bounds how late is noticed that the clock or the job file was changed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// The shortest time between two looks at the jobs.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);
/// The longest pause after a look that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The number of messages that are remembered as said.
const SAID: usize = 100;

/// A service, before its first look at the jobs.
pub(crate) struct Service<'a, S> {
    source: S,
    local: LocalBackend,
    /// The jobs, which others may look at as well.
    jobs: watch::Sender<Arc<Jobs>>,
    /// What came of the last time that the job file was read, for others.
    reload: watch::Sender<Reload>,
    last_read: LastRead,
    textfile: Option<Textfile>,
    clock: &'a dyn Fn() -> DateTime<Utc>,
    interrupts: &'a Interrupts,
    hangups: Signal,
    manager: Manager,
    /// The problems that were said since all was well.
    said: HashSet<String>,
    /// The number of looks in a row that failed.
    failed: u32,
    has_looked: bool,
    is_stopping: bool,
}

/// What a service is made of.
pub(crate) struct Parts<'a, S> {
    pub(crate) source: S,
    pub(crate) local: LocalBackend,
    /// The jobs of the file that was read.
    pub(crate) jobs: watch::Sender<Arc<Jobs>>,
    pub(crate) reload: watch::Sender<Reload>,
    pub(crate) last_read: LastRead,
    /// The file with metrics that is written after each look.
    pub(crate) textfile: Option<Textfile>,
    pub(crate) clock: &'a dyn Fn() -> DateTime<Utc>,
    pub(crate) interrupts: &'a Interrupts,
    /// The signals to read the file again.
    pub(crate) hangups: Signal,
}

/// What the loop waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// An instant of the clock. One that goes back ends the wait as well.
    Until { from: DateTime<Utc>, to: DateTime<Utc> },
    /// A pause after a failure.
    Pause(Instant),
}

/// What ended the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Time,
    Reload,
    Stop,
}

impl<'a, S: Source> Service<'a, S> {
    /// Makes a service of these parts.
    pub(crate) fn new(parts: Parts<'a, S>) -> Self {
        let Parts { source, local, jobs, reload, last_read, textfile, clock, interrupts, hangups } = parts;
        Self {
            source,
            local,
            jobs,
            reload,
            last_read,
            textfile,
            clock,
            interrupts,
            hangups,
            manager: Manager::from_environment(),
            said: HashSet::new(),
            failed: 0,
            has_looked: false,
            is_stopping: false,
        }
    }

    /// Runs what is due until the program is interrupted.
    pub(crate) async fn run(mut self) {
        info!("started with {}", self.jobs_in_words());
        // Policies were asked for their opinion of the job file.
        memory::release(&self.local).await;
        loop {
            let wait = self.look().await;
            if self.is_stopping {
                break;
            }
            match self.wait(wait).await {
                Woken::Time => {}
                Woken::Reload => self.read_again().await,
                Woken::Stop => break,
            }
        }
        self.stop();
        info!("stopped");
    }

    /// Looks at the jobs once, and runs what is due.
    async fn look(&mut self) -> Wait {
        let from = (self.clock)();
        let jobs = Arc::clone(&self.jobs.borrow());
        let interrupts = self.interrupts;
        let mut tick = pin!(jobs.tick(interrupts.asked()));
        let ticked = loop {
            tokio::select! {
                biased;
                ticked = &mut tick => break ticked,
                () = interrupts.asked(), if !self.is_stopping => self.stop(),
                () = sleep_until(self.manager.next_beat()) => self.manager.beat(),
            }
        };
        match ticked {
            Ok(tick) => {
                let wait = self.looked(from, &tick);
                self.write_metrics(&jobs).await;
                // The first look reads all that microsandbox did meanwhile.
                if !tick.ran.is_empty() || !std::mem::replace(&mut self.has_looked, true) {
                    // A report has the plans of its run.
                    drop(tick);
                    memory::release(&self.local).await;
                }
                wait
            }
            Err(error) => {
                self.say(&Failure::from(error).messages().collect::<Vec<_>>().join(": "));
                self.failed += 1;
                let pause = SHORTEST_SLEEP * (1 << self.failed.min(6));
                Wait::Pause(Instant::now() + pause.min(LONGEST_PAUSE))
            }
        }
    }

    /// Writes the file with metrics, if there is to be one.
    async fn write_metrics(&mut self, jobs: &Jobs) {
        let Some(textfile) = &self.textfile else { return };
        let reload = *self.reload.borrow();
        if let Err(failure) = textfile.write(jobs, Some(reload)).await {
            self.say(&failure.messages().collect::<Vec<_>>().join(": "));
        }
    }

    /// Says what came of a look, and returns what to wait for.
    fn looked(&mut self, from: DateTime<Utc>, tick: &Tick) -> Wait {
        if std::mem::take(&mut self.failed) > 0 {
            info!("the home can be used again");
        }
        if tick.problems.is_empty() {
            self.said.clear();
        }
        tick.problems.iter().for_each(|problem| self.say(problem));
        tick.ran.iter().for_each(log::run);
        self.manager.ready();
        let to = if tick.is_busy { from + LONGEST_SLEEP } else { tick.next_at.max(from + SHORTEST_SLEEP) };
        self.manager.status(&format!("{}, looks again at {}", self.in_words(), to.format("%H:%M:%S UTC")));
        Wait::Until { from, to }
    }

    /// Waits until it is time for the next look, or for something else.
    async fn wait(&mut self, wait: Wait) -> Woken {
        loop {
            let longest = Instant::now() + LONGEST_SLEEP;
            let end = match wait {
                Wait::Until { to, .. } => {
                    let left = (to - (self.clock)()).to_std().unwrap_or_default();
                    (Instant::now() + left).min(longest)
                }
                Wait::Pause(end) => end.min(longest),
            };
            tokio::select! {
                biased;
                () = self.interrupts.asked() => return Woken::Stop,
                _ = self.hangups.recv() => return Woken::Reload,
                () = sleep_until(self.manager.next_beat()) => self.manager.beat(),
                () = sleep_until(end) => {}
            }
            if Fingerprint::of(self.source.path()) != self.last_read.fingerprint {
                return Woken::Reload;
            }
            let now = (self.clock)();
            let is_over = match wait {
                Wait::Until { from, to } => now >= to || now < from,
                Wait::Pause(end) => Instant::now() >= end,
            };
            if is_over {
                return Woken::Time;
            }
        }
    }

    /// Reads the job file again, and takes its jobs if it can be used.
    async fn read_again(&mut self) {
        self.manager.reloading();
        // Looked at before it is read: a change in between is a later change.
        let fingerprint = Fingerprint::of(self.source.path());
        let is_other = fingerprint != self.last_read.fingerprint;
        let read = self.source.read().await;
        let at = (self.clock)();
        let problem = match read {
            Ok(Loaded { file, policies }) => {
                let jobs = self.jobs.borrow().with_file(file, policies);
                self.jobs.send_replace(Arc::new(jobs));
                self.reload.send_replace(Reload::succeeded(at));
                info!("the job file was read again: {}", self.jobs_in_words());
                None
            }
            Err(failure) => {
                let problem = failure.messages().collect::<Vec<_>>().join(": ");
                // Once for a file, although a signal has it read again.
                if is_other || self.last_read.problem.as_ref() != Some(&problem) {
                    problem.lines().for_each(|line| error!("{line}"));
                    warn!(
                        "the jobs of before stay until the job file can be used, and remove nothing while its guard cannot be read"
                    );
                }
                self.reload.send_modify(|reload| *reload = reload.failed());
                Some(problem)
            }
        };
        self.last_read = LastRead { fingerprint, at, problem };
        memory::release(&self.local).await;
        self.manager.reloaded();
    }

    /// Says that it is about to stop.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            info!("stopping: images that are being removed still go");
            self.manager.stopping();
        }
    }

    /// Says a problem, unless it was said since all was well.
    fn say(&mut self, problem: &str) {
        if self.said.len() >= SAID {
            self.said.clear();
        }
        if self.said.insert(problem.to_owned()) {
            warn!("{problem}");
        }
    }

    fn jobs_in_words(&self) -> String {
        let jobs = self.jobs.borrow();
        let names: Vec<String> = jobs.file().jobs.iter().map(|job| format!("`{}`", job.name)).collect();
        match names.len() {
            0 => format!("no job in `{}`", self.source.path().display()),
            number => format!("{}: {}", count(number, "job"), names.join(", ")),
        }
    }

    /// Returns the number of jobs and whether they are those of the file, in a few words.
    fn in_words(&self) -> String {
        let jobs = count(self.jobs.borrow().file().jobs.len(), "job");
        if self.last_read.problem.is_none() {
            return jobs;
        }
        let (used, at) = (self.reload.borrow().succeeded_at, self.last_read.at);
        format!(
            "{jobs} of the file of {}, since that of {} cannot be used",
            used.format("%F %T UTC"),
            at.format("%F %T UTC")
        )
    }
}
