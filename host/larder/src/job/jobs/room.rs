//! Making room for a pull or load.
//!
//! Nothing goes for room that cannot be had: what the jobs would remove is planned first, and if that is not enough, none of
//! it is removed.

use std::future::pending;
use std::pin::{Pin, pin};
use std::time::Duration;

use super::Jobs;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::ingest::MakeRoom;
use crate::job::runner::{Aim, Pass, Stop};
use crate::job::{Job, JobReport, JobRun};
use crate::records::JobCause;

/// The pause between two looks whether the job that runs has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// What making room came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RoomMade {
    /// The runs, none if the room was there.
    pub ran: Vec<JobRun>,
    /// What the last of the jobs would have done, if all of them together cannot make the room: then none of them ran.
    pub cannot: Option<JobReport>,
}

impl Jobs {
    /// Runs the jobs under pressure that [make room](crate::job::Pressure::make_room) and do not only observe, in the order
    /// of their names, until so many bytes are available on the file system of the cache. If all of them together cannot
    /// make so much room, none runs. If another job is running, waits for its end: it may make the room. Whether the room is
    /// there afterwards, the file system says.
    ///
    /// # Errors
    /// Fails if the home cannot be written, or if the file system does not answer.
    pub async fn make_room(
        &self,
        bytes: u64,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<RoomMade> {
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        let mut made = RoomMade::default();
        let mut left = self.makers();
        let mut is_planned = false;
        while let Some(&job) = left.first() {
            if self.runner.status().await?.available_bytes >= bytes || stop.is_asked {
                break;
            }
            let Some(_lock) = self.lock()? else {
                let pause = blocking("wait for another job", || {
                    std::thread::sleep(PAUSE);
                    Ok(())
                });
                stop.race(pause).await;
                continue;
            };
            if !std::mem::replace(&mut is_planned, true) {
                made.cannot = self.cannot_make(bytes, &left, &mut stop).await?;
                if made.cannot.is_some() {
                    break;
                }
            }
            made.ran.push(self.run_now(job, Aim::Room(bytes), JobCause::MakeRoom, None, &mut stop).await?);
            left.remove(0);
        }
        Ok(made)
    }

    /// Plans what these jobs would remove. Returns the last report if all of it is not enough.
    async fn cannot_make<F: Future<Output = ()>>(
        &self,
        bytes: u64,
        jobs: &[&Job],
        stop: &mut Stop<'_, F>,
    ) -> MicrosandboxResult<Option<JobReport>> {
        let mut missing = bytes.saturating_sub(self.runner.status().await?.available_bytes);
        let mut last = None;
        for job in jobs {
            let policies = &*self.policies;
            let report = self.runner.run_for(job, Aim::Room(bytes), policies, Pass::DryRun, stop).await?;
            missing = missing.saturating_sub(report.freed_bytes);
            if missing == 0 {
                return Ok(None);
            }
            last = Some(report);
        }
        Ok(last)
    }

    fn makers(&self) -> Vec<&Job> {
        self.file.jobs.iter().filter(|job| job.makes_room()).collect()
    }
}

impl MakeRoom for Jobs {
    fn make_room(&self, bytes: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>> {
        Box::pin(async move { Self::make_room(self, bytes, pending()).await.map(drop) })
    }
}
