//! Room for a load or pull: the jobs of the job file that make it, or none.

use std::pin::Pin;
use std::sync::Arc;

use larder::ingest::{AsItIs, MakeRoom};
use larder::job::{Job, JobFile, Jobs, RoomMade};
use larder::{LocalBackend, MicrosandboxResult};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::job::policies::NamedPolicies;
use crate::cli::Context;
use crate::console::Console;
use crate::engine::CodeCache;
use crate::exit::Failure;
use crate::input;
use crate::interrupt::Interrupts;
use crate::places;
use crate::render::job::held_lines;
use crate::render::size::size;
use crate::render::{count, plain};

/// What makes room for a load or pull.
#[derive(Debug, clap::Args)]
pub(super) struct RoomArguments {
    /// Skip the check for free space, and make no room
    #[arg(long)]
    no_room: bool,
}

/// What makes room, and the jobs that it is doing so with.
pub(super) enum Room {
    /// Nothing looks whether there is room.
    Unasked,
    /// There is room, or the load or pull fails.
    AsItIs,
    /// Jobs make it.
    Jobs(Arc<JobsRoom>),
}

impl RoomArguments {
    /// Finds out what makes room. A job file that cannot be used is said, and makes none.
    pub(super) fn find(&self, local: &LocalBackend, context: &Context) -> Result<Room, Failure> {
        if self.no_room {
            return Ok(Room::Unasked);
        }
        let path = places::job_file(None, local);
        let file = match path.try_exists() {
            Ok(false) => return Ok(Room::AsItIs),
            _ => input::read(&path).map_err(|failure| failure.messages().collect::<Vec<_>>().join(": ")),
        };
        let file = file.and_then(|text| JobFile::parse(&text).map_err(|findings| findings.to_string()));
        let file = match file {
            Ok(file) => file,
            Err(problem) => {
                let path = path.display();
                context
                    .console
                    .warn(&plain(&format!("no job makes room, since `{path}` cannot be used: {problem}")));
                return Ok(Room::AsItIs);
            }
        };
        if !file.jobs.iter().any(Job::makes_room) {
            return Ok(Room::AsItIs);
        }
        let policies = NamedPolicies::new(CodeCache::default().engine()?, path);
        Ok(Room::Jobs(Arc::new(JobsRoom {
            jobs: Arc::new(Jobs::new(local.clone(), file, policies)),
            console: context.console.clone(),
            interrupts: context.interrupts()?.clone(),
            task: Mutex::default(),
        })))
    }
}

impl Room {
    /// Returns what makes room; none if nothing looks.
    pub(super) fn maker(&self) -> Option<Arc<dyn MakeRoom>> {
        match self {
            Self::Unasked => None,
            Self::AsItIs => Some(Arc::new(AsItIs)),
            Self::Jobs(room) => Some(Arc::<JobsRoom>::clone(room)),
        }
    }

    /// Waits until a job that was interrupted has ended, and its record is complete.
    pub(super) async fn settle(&self) {
        if let Self::Jobs(room) = self
            && let Some(task) = room.task.lock().await.take()
        {
            // What went wrong is on record, and nobody waits for the room any longer.
            let _ = task.await;
        }
    }
}

/// Makes room by jobs, and says what went.
pub(super) struct JobsRoom {
    jobs: Arc<Jobs>,
    console: Console,
    interrupts: Interrupts,
    /// The runs, which end by themselves if nobody waits for them any longer.
    task: Mutex<Option<JoinHandle<MicrosandboxResult<RoomMade>>>>,
}

impl MakeRoom for JobsRoom {
    fn make_room(&self, bytes: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>> {
        Box::pin(async move {
            self.console.note(&format!("making room: {} are needed", size(bytes)));
            let (jobs, interrupts) = (Arc::clone(&self.jobs), self.interrupts.clone());
            let task = tokio::spawn(async move { jobs.make_room(bytes, interrupts.asked()).await });
            let mut running = self.task.lock().await;
            let made = match running.insert(task).await {
                Ok(made) => made?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            running.take();
            if let Some(report) = &made.cannot {
                self.console.warn(&format!(
                    "the jobs that make room cannot make so much: {} would be missing, so they removed nothing",
                    size(report.unmet_bytes)
                ));
                self.console.note(&held_lines(&report.held));
            }
            for run in &made.ran {
                let report = &run.record.report;
                let removed = count(usize::try_from(report.removed).unwrap_or(usize::MAX), "image");
                self.console.note(&format!(
                    "`{}` removed {removed}, freed {}",
                    run.record.job,
                    size(report.freed_bytes)
                ));
                for problem in report.problem.iter().chain(&report.notes) {
                    self.console.warn(&plain(problem));
                }
            }
            Ok(())
        })
    }
}
