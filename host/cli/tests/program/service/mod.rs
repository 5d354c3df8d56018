//! The service: jobs that run by themselves, told by signals and watched by a service manager.
//!
//! - `reloading`: what the manager is told, and another job file
//! - `ending`: a service that is asked to end, or killed
//! - `listening`: what a service shows to others
//! - `beside`: services and jobs beside each other

mod beside;
mod ending;
mod listening;
mod reloading;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use larder_tests::Running;
use rustix::process::Signal;

use crate::harness::TestEnvironment;

/// A day after the time at which tests begin: what is due once a day is due.
const A_DAY_LATER: &str = "2026-11-25T12:00:00Z";

/// A running service, and what its service manager hears of it. The watchdog wants a sign of life so often that the service
/// looks at its job file ten times a second.
struct Service {
    running: Running,
    /// What the manager hears, received at once.
    heard: Receiver<String>,
    socket: PathBuf,
}

impl Service {
    /// Starts a service on `jobs.toml`. It has a number, if there are several.
    fn start(test: &TestEnvironment, now: &str, number: u32) -> Self {
        Self::start_with(test, now, number, "")
    }

    /// Starts one with more arguments.
    fn start_with(test: &TestEnvironment, now: &str, number: u32, arguments: &str) -> Self {
        let socket = test.directory().join(format!("manager{number}"));
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        let (hear, heard) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = manager.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
                if hear.send(message).is_err() {
                    break;
                }
            }
        });
        let mut command =
            test.command_at(now, &format!("job start --file jobs.toml --code-cache code {arguments}"));
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
        Self { running: Running::start(command), heard, socket }
    }

    /// Starts one, and waits until it has looked at its jobs.
    fn ready(test: &TestEnvironment, now: &str) -> Self {
        let service = Self::start(test, now, 0);
        service.hear("READY=1");
        service
    }

    /// Waits until the manager hears this, and returns the messages up to there, without signs of life.
    #[track_caller]
    fn hear(&self, wanted: &str) -> Vec<String> {
        let (mut heard, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
        loop {
            // Signs of life come all the time.
            let message = self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let message = message.unwrap_or_else(|error| panic!("{error}: {heard:?}"));
            let is_last = message.contains(wanted);
            if is_last || !is_sign_of_life(&message) {
                heard.push(message);
            }
            if is_last {
                return heard;
            }
        }
    }

    /// Has it read its job file again, and waits until it has.
    fn reload(&self) {
        self.running.signal(Signal::HUP);
        self.hear("RELOADING=1");
        self.hear("READY=1");
    }

    /// Has it look at its jobs again, and waits until it has.
    fn look(&self) {
        self.reload();
        // It looks after that, and reads signals after it has looked.
        self.reload();
    }

    /// Asks it to end, and returns its status and its log.
    fn end(self) -> (ExitStatus, Vec<serde_json::Value>) {
        self.running.signal(Signal::TERM);
        self.ended()
    }

    fn ended(self) -> (ExitStatus, Vec<serde_json::Value>) {
        let Self { running, socket, .. } = self;
        let (status, stdout, stderr) = running.end();
        std::fs::remove_file(socket).expect("the socket");
        assert_eq!(stdout, "");
        let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (status, stderr.lines().map(line).collect())
    }
}

fn is_sign_of_life(message: &str) -> bool {
    message.starts_with("WATCHDOG=1") || message.starts_with("EXTEND_TIMEOUT_USEC=")
}

/// A job file of one job, which runs each night, and so much besides.
fn nightly(test: &TestEnvironment, rest: &str) -> String {
    job(test, "nightly", "max-share = \"100%\"") + rest
}

/// A job that runs each night and removes all but the newest image of each repository, with this cap.
fn job(test: &TestEnvironment, name: &str, cap: &str) -> String {
    let policy = test.job_policy("keep-recent");
    format!(
        "[jobs.{name}]\nschedule = \"30 2 * * *\"\ntime-zone = \"UTC\"\njitter = \"0s\"\npolicy = \"{policy}\"\n\
         config = {{ keep = 1 }}\ngrant = {{ remove = [\"**\"], {cap} }}\n\n"
    )
}

/// Lets a service see the jobs for the first time, at the time at which tests begin. None of them is due then.
fn seen(test: &TestEnvironment) {
    let output = test.larder("job run --due --file jobs.toml --code-cache code");
    assert!(output.status == 0 && output.stderr.contains("nothing is due"), "{output}");
}

/// The messages of a log.
fn messages(log: &[serde_json::Value]) -> Vec<&str> {
    log.iter().map(|line| line["message"].as_str().expect("a message")).collect()
}

/// The number of runs on record.
fn runs(test: &TestEnvironment, which: &str) -> i64 {
    test.home.count(&format!("SELECT count(*) FROM larder_job_run WHERE {which}"))
}
