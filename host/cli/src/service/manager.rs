//! The service manager: what it is told (sd_notify(3)), and its watchdog.
//!
//! Without one, nobody is told anything.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The time between two signs of life without a watchdog.
const BEAT: Duration = Duration::from_secs(20);
/// The time that a start may take from a sign of life on, in microseconds.
const EXTENSION: u32 = 60_000_000;
/// How long a manager may take to receive a message.
const PATIENCE: Duration = Duration::from_millis(500);

/// The service manager.
#[derive(Debug)]
pub(super) struct Manager {
    /// The time between two signs of life: half of what the watchdog allows.
    every: Duration,
    has_watchdog: bool,
    next_beat: Instant,
    is_ready: bool,
    /// The status that it was told last.
    status: String,
}

impl Manager {
    /// Finds out what the service manager expects, by `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(super) fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self {
            every: watchdog.map_or(BEAT, |limit| limit / 2),
            has_watchdog: watchdog.is_some(),
            next_beat: Instant::now(),
            is_ready: false,
            status: String::new(),
        }
    }

    /// Returns when the next sign of life is due.
    pub(super) fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// Gives a sign of life. While the service starts, which lasts as long as its first jobs, asks for more time.
    pub(super) fn beat(&mut self) {
        self.next_beat = Instant::now() + self.every;
        if !self.is_ready {
            tell(&[NotifyState::ExtendTimeoutUsec(EXTENSION)]);
        }
        if self.has_watchdog {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Says that the service has started. Says it once.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            tell(&[NotifyState::Ready]);
        }
    }

    /// Says that the job file is being read again, in the form that `Type=notify-reload` and `Type=notify` take.
    pub(super) fn reloading(&self) {
        if self.is_ready {
            match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now]),
                Err(_) => tell(&[NotifyState::Reloading]),
            }
        }
    }

    /// Says that it was read.
    pub(super) fn reloaded(&self) {
        if self.is_ready {
            tell(&[NotifyState::Ready]);
        }
    }

    /// Says what the service is up to, in one line.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&[NotifyState::Status(status)]);
        }
    }

    /// Says that the service ends.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// Sends a message. Nobody waits for long for a manager that reads nothing, as `sd_notify::notify` would.
fn tell(states: &[NotifyState<'_>]) {
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else { return };
    if let Err(error) = send(address.as_bytes(), &message) {
        tracing::debug!("could not tell the service manager: {error}");
    }
}

fn send(address: &[u8], message: &str) -> io::Result<()> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}
