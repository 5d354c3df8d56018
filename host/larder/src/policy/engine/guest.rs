//! The state of a guest that runs: its session, how far it is within its limits, and why the host ended it.
//!
//! A limit that is passed ends the run at that call. A memory or a table that cannot grow is reported to the guest as
//! WebAssembly has it, since some runtimes collect their garbage and go on; only when the run ends badly after that,
//! the limit is named as its cause.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::v0_2;
use crate::policy::error::PolicyError;
use crate::policy::limits::{LimitKey, Limits};
use crate::policy::session::Session;

/// The state of one instance.
pub(super) struct GuestState {
    /// Absent while `describe` runs, which has access to nothing.
    pub(super) session: Option<Session>,
    /// The session's images as a guest of `larder:image@0.2` sees them.
    handles: v0_2::Handles,
    pub(super) limits: Limits,
    pub(super) host_calls: u64,
    /// Bytes of all memories.
    pub(super) memory: u64,
    table_elements: u64,
    /// A limit that kept a memory or table from growing.
    pub(super) exhausted: Option<LimitKey>,
    /// The error for which the host ended the run.
    pub(super) stopped: Option<PolicyError>,
}

impl GuestState {
    pub(super) fn new(session: Option<Session>, limits: Limits) -> Self {
        Self {
            handles: session.as_ref().map(|session| v0_2::Handles::new(&session.images)).unwrap_or_default(),
            session,
            limits,
            host_calls: 0,
            memory: 0,
            table_elements: 0,
            exhausted: None,
            stopped: None,
        }
    }

    /// Returns the session and what its images look like; none while `describe` runs.
    pub(super) fn session(&mut self) -> Option<(&mut Session, &v0_2::Handles)> {
        Some((self.session.as_mut()?, &self.handles))
    }

    /// Returns how long the cache took to read while the guest waited. That is not the guest's time.
    pub(super) fn reading(&self) -> Duration {
        self.session.as_ref().map_or(Duration::ZERO, Session::reading)
    }

    /// Ends the run for this reason. The error that is returned only unwinds the guest.
    pub(super) fn stop(&mut self, error: PolicyError) -> wasmtime::Error {
        self.stopped = Some(error);
        wasmtime::Error::msg("the host ended the run")
    }

    /// Counts a call to the host.
    pub(super) fn count(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls <= self.limits.host_calls {
            return Ok(());
        }
        Err(self.stop(PolicyError::limit(LimitKey::HostCalls, &self.limits)))
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if total > self.limits.memory.as_bytes() {
            self.exhausted = Some(LimitKey::Memory);
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if total > self.limits.table_elements {
            self.exhausted = Some(LimitKey::TableElements);
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        self.limits.instances as usize
    }
}
