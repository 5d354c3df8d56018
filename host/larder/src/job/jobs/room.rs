//! Making room for a pull or load.

use std::future::pending;
use std::pin::{Pin, pin};
use std::time::Duration;

use super::Jobs;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::ingest::MakeRoom;
use crate::job::file::Trigger;
use crate::job::runner::{Aim, Stop};
use crate::job::{Job, JobRun};
use crate::records::JobCause;

/// The pause between two looks whether the job that runs has ended.
const PAUSE: Duration = Duration::from_millis(200);

impl Jobs {
    /// Runs the jobs under pressure that [make room](crate::job::Pressure::make_room), in the order of their names, until so
    /// many bytes are available on the file system of the cache. If another job is running, waits for its end: it may make
    /// the room. Returns the runs, none if the room is there. Whether it is there afterwards, the file system says.
    ///
    /// # Errors
    /// Fails if the home cannot be written, or if the file system does not answer.
    pub async fn make_room(
        &self,
        bytes: u64,
        stop: impl Future<Output = ()>,
    ) -> MicrosandboxResult<Vec<JobRun>> {
        let mut stop = Stop { asked: pin!(stop), is_asked: false };
        let mut ran = Vec::new();
        let mut left = self.makers();
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
            ran.push(self.run_now(job, Aim::Room(bytes), JobCause::MakeRoom, None, &mut stop).await?);
            left.remove(0);
        }
        Ok(ran)
    }

    fn makers(&self) -> Vec<&Job> {
        let makes_room =
            |job: &&Job| matches!(&job.trigger, Trigger::Pressure(pressure) if pressure.make_room);
        self.file.jobs.iter().filter(makes_room).collect()
    }
}

impl MakeRoom for Jobs {
    fn make_room(&self, bytes: u64) -> Pin<Box<dyn Future<Output = MicrosandboxResult<()>> + Send + '_>> {
        Box::pin(async move { Self::make_room(self, bytes, pending()).await.map(drop) })
    }
}
