//! What a guest meets: the imports of the contract, counted and limited, and the limits on its memory.
//!
//! A limit that is passed ends the run at that call. A memory or a table that cannot grow is reported to the guest as
//! WebAssembly has it, since some runtimes collect their garbage and go on; only when the run ends badly after that,
//! the limit is named as its cause.

use wasmtime::ResourceLimiter;

use super::bindings::{images, report, types, usage};
use super::error::{LimitKey, PolicyError};
use super::grant::Limits;
use super::session::{Answer, Session, Stop};

/// The state of one instance.
pub(super) struct RunState {
    /// Absent while `describe` runs, which has access to nothing.
    pub(super) session: Option<Session>,
    pub(super) limits: Limits,
    pub(super) host_calls: u64,
    /// Bytes of all memories.
    pub(super) memory: u64,
    table_elements: u64,
    /// A limit that kept a memory or table from growing.
    pub(super) exhausted: Option<LimitKey>,
    /// Why the host ended the run.
    pub(super) stopped: Option<PolicyError>,
}

impl RunState {
    pub(super) fn new(session: Option<Session>, limits: Limits) -> Self {
        Self { session, limits, host_calls: 0, memory: 0, table_elements: 0, exhausted: None, stopped: None }
    }

    /// Ends the run for this reason. The error that is returned only unwinds the guest.
    pub(super) fn stop(&mut self, error: PolicyError) -> wasmtime::Error {
        self.stopped = Some(error);
        wasmtime::Error::msg("the host ended the run")
    }

    fn count(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls <= self.limits.host_calls {
            return Ok(());
        }
        Err(self.stop(PolicyError::limit(LimitKey::HostCalls, &self.limits)))
    }

    /// A call that can answer with an error.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Session) -> Answer<T>,
    ) -> wasmtime::Result<Result<T, types::Error>> {
        self.count()?;
        let Some(session) = &mut self.session else {
            return Ok(Err(types::Error::Unsupported("`describe` has no access to the cache".to_owned())));
        };
        match call(session) {
            Ok(value) => Ok(Ok(value)),
            Err(Stop::Answer(error)) => Ok(Err(error)),
            Err(Stop::End(error)) => Err(self.stop(error)),
        }
    }

    /// A call that cannot.
    fn tell(&mut self, name: &str, call: impl FnOnce(&mut Session) -> Answer<()>) -> wasmtime::Result<()> {
        self.count()?;
        let Some(session) = &mut self.session else {
            let cause = format!("it called `{name}`, and `describe` has access to nothing");
            return Err(self.stop(PolicyError::Trapped { during: "describe", cause, backtrace: Vec::new() }));
        };
        match call(session) {
            // What cannot be answered is not heard.
            Ok(()) | Err(Stop::Answer(_)) => Ok(()),
            Err(Stop::End(error)) => Err(self.stop(error)),
        }
    }
}

impl types::Host for RunState {}

impl images::Host for RunState {
    fn list(&mut self) -> wasmtime::Result<Result<Vec<types::ImageHandle>, types::Error>> {
        self.call(Session::list)
    }

    fn get(&mut self, reference: String) -> wasmtime::Result<Result<types::ImageHandle, types::Error>> {
        self.call(|session| session.get(&reference))
    }

    fn inspect(&mut self, reference: String) -> wasmtime::Result<Result<types::ImageDetail, types::Error>> {
        self.call(|session| session.inspect(&reference))
    }

    fn remove(&mut self, reference: String, force: bool) -> wasmtime::Result<Result<(), types::Error>> {
        self.call(|session| session.remove(&reference, force))
    }

    fn prune(&mut self) -> wasmtime::Result<Result<types::ImagePruneReport, types::Error>> {
        self.call(Session::prune)
    }

    fn select(
        &mut self,
        filter: images::ImageFilter,
    ) -> wasmtime::Result<Result<Vec<types::ImageHandle>, types::Error>> {
        self.call(|session| session.select(filter))
    }
}

impl usage::Host for RunState {
    fn list_usage(&mut self) -> wasmtime::Result<Result<Vec<usage::ImageUsage>, types::Error>> {
        self.call(Session::list_usage)
    }

    fn get_usage(&mut self, reference: String) -> wasmtime::Result<Result<usage::ImageUsage, types::Error>> {
        self.call(|session| session.get_usage(&reference))
    }

    fn reclaimable_bytes(&mut self, references: Vec<String>) -> wasmtime::Result<Result<u64, types::Error>> {
        self.call(|session| session.reclaimable_bytes(&references))
    }

    fn disk(&mut self) -> wasmtime::Result<Result<usage::DiskStatus, types::Error>> {
        self.call(Session::disk)
    }
}

impl report::Host for RunState {
    fn log(&mut self, level: report::Level, message: String) -> wasmtime::Result<()> {
        self.tell("report.log", |session| session.log(level, &message))
    }

    fn explain(&mut self, reference: String, reason: String) -> wasmtime::Result<()> {
        self.tell("report.explain", |session| session.explain(&reference, &reason))
    }
}

impl ResourceLimiter for RunState {
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
