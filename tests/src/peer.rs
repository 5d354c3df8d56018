//! microsandbox's own SDK, called through `larder-peer`, which `cargo xtask peer` builds. If it is not built,
//! a test prints that it is skipped and passes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::component::target;
use crate::judge::SKIPPED;
use crate::usage::Usage;

/// The program that makes one call of the SDK on a home.
#[derive(Debug, Clone)]
pub struct Peer {
    program: PathBuf,
}

/// The program's report of a call.
#[derive(Debug, Clone, Deserialize)]
pub struct PeerReport {
    /// The SDK's answer, in the form of Larder's records.
    pub answer: Value,
    opened_ns: u64,
    calls_ns: Vec<u64>,
    cpu_ms: u64,
    peak_memory_kib: u64,
}

impl PeerReport {
    /// Returns the time that the SDK took to open the home.
    pub fn opened(&self) -> Duration {
        Duration::from_nanos(self.opened_ns)
    }

    /// Returns the time of each call.
    pub fn calls(&self) -> Vec<Duration> {
        self.calls_ns.iter().copied().map(Duration::from_nanos).collect()
    }

    /// Returns the processor time and the peak memory of the whole process.
    pub fn usage(&self) -> Usage {
        Usage { cpu: Duration::from_millis(self.cpu_ms), peak_memory_kib: self.peak_memory_kib }
    }
}

impl Peer {
    /// Returns the program, if it was built.
    pub fn built() -> Option<Self> {
        let program = target().join("peer/release/larder-peer");
        program.exists().then_some(Self { program })
    }

    /// Finds the program like [`built`](Self::built), for a test: prints that the test is skipped if there is
    /// no program.
    pub fn find() -> Option<Self> {
        let peer = Self::built();
        if peer.is_none() {
            eprintln!("{SKIPPED}microsandbox's SDK is not built: `cargo xtask peer`");
        }
        peer
    }

    /// Makes a call, such as `["get", "docker.io/acme/app:1"]`, on the home at a path.
    ///
    /// # Errors
    /// The SDK's message if it refuses the call.
    pub fn call<S: AsRef<OsStr>>(
        &self,
        home: &Path,
        call: impl IntoIterator<Item = S>,
    ) -> Result<PeerReport, String> {
        let mut command = self.command(home, call);
        let output = command.output().expect("the program ran");
        if !output.status.success() {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(serde_json::from_slice(&output.stdout).expect("a report"))
    }

    fn command<S: AsRef<OsStr>>(&self, home: &Path, call: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing of whoever runs the test: neither settings nor another home.
        command.env_clear().env("HOME", home).arg(home).args(call);
        command
    }

    /// Makes a call, and ends it if it takes longer than `limit`. Returns `None` then.
    ///
    /// # Panics
    /// Panics if the SDK refuses the call.
    pub fn call_within<S: AsRef<OsStr>>(
        &self,
        home: &Path,
        call: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Option<PeerReport> {
        let mut command = self.command(home, call);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program ran");
        let clock = Instant::now();
        // A report fits into a pipe: it does not wait for somebody who reads.
        while child.try_wait().expect("its state").is_none() {
            if clock.elapsed() > limit {
                child.kill().expect("ended");
                child.wait().expect("its state");
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("what it said");
        assert!(output.status.success(), "{command:?}: {}", output.status);
        Some(serde_json::from_slice(&output.stdout).expect("a report"))
    }

    /// Returns the answer to a [`call`](Self::call).
    ///
    /// # Panics
    /// Panics if the SDK refuses the call, because the test cannot continue.
    #[track_caller]
    pub fn ask<S: AsRef<OsStr>>(&self, home: &Path, call: impl IntoIterator<Item = S>) -> Value {
        self.call(home, call).unwrap_or_else(|refusal| panic!("{refusal}")).answer
    }
}
