//! The functions that a guest can call.

use std::sync::Arc;

use super::{Handles, convert, images, report, types, usage};
use crate::policy::engine::guest::GuestState;
use crate::policy::error::PolicyError;
use crate::policy::session::Session;
use crate::policy::session::answers::{Answer, CallError};

/// The result of a function that can fail, for the guest; the outer error ends the run.
type Called<T> = wasmtime::Result<Result<T, types::Error>>;

impl GuestState {
    /// Makes a call that can answer with an error.
    fn call<T>(&mut self, call: impl FnOnce(&mut Session, &Handles) -> Answer<T>) -> Called<T> {
        self.count()?;
        let Some((session, handles)) = self.session() else {
            return Ok(Err(types::Error::Unsupported("`describe` has no access to the cache".to_owned())));
        };
        match call(session, handles) {
            Ok(value) => Ok(Ok(value)),
            Err(CallError::Guest(error)) => Ok(Err(convert::error(error, session, handles))),
            Err(CallError::Run(error)) => Err(self.stop(error)),
        }
    }

    /// Makes a call that cannot: to `name`, which does not exist while the policy describes itself.
    fn call_infallible<T: Default>(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut Session) -> Answer<T>,
    ) -> wasmtime::Result<T> {
        self.count()?;
        let Some((session, _)) = self.session() else {
            let cause = format!("it called `{name}`, and `describe` has access to nothing");
            return Err(self.stop(PolicyError::Trapped { during: "describe", cause, backtrace: Vec::new() }));
        };
        match call(session) {
            Ok(value) => Ok(value),
            // The guest cannot be told.
            Err(CallError::Guest(_)) => Ok(T::default()),
            Err(CallError::Run(error)) => Err(self.stop(error)),
        }
    }
}

/// Returns the handles of images.
fn shared(images: Vec<usize>, handles: &Handles) -> Vec<types::ImageHandle> {
    images.into_iter().map(|image| Arc::clone(handles.get(image))).collect()
}

impl images::Host for GuestState {
    fn list(&mut self) -> Called<Vec<types::ImageHandle>> {
        self.call(|session, handles| Ok(shared(session.list()?, handles)))
    }

    fn get(&mut self, reference: String) -> Called<types::ImageHandle> {
        self.call(|session, handles| Ok(Arc::clone(handles.get(session.get(&reference)?))))
    }

    fn inspect(&mut self, reference: String) -> Called<types::ImageDetail> {
        self.call(|session, handles| Ok(convert::detail(session.inspect(&reference)?, handles)))
    }

    fn remove(&mut self, reference: String, force: bool) -> Called<()> {
        self.call(|session, _| session.remove(&reference, force))
    }

    fn restore(&mut self, reference: String) -> Called<()> {
        self.call(|session, _| session.restore(&reference))
    }

    fn prune(&mut self) -> Called<types::ImagePruneReport> {
        self.call(|session, _| session.prune().map(convert::pruned))
    }

    fn select(&mut self, filter: images::ImageFilter) -> Called<Vec<types::ImageHandle>> {
        self.call(|session, handles| Ok(shared(session.select(convert::filter(filter)?)?, handles)))
    }
}

impl usage::Host for GuestState {
    fn get_usage(&mut self, references: Option<Vec<String>>) -> Called<Vec<usage::ImageUsage>> {
        self.call(|session, handles| {
            let usage = session.usage(references.as_deref())?;
            Ok(usage.into_iter().map(|usage| convert::usage(usage, session, handles)).collect())
        })
    }

    fn get_costs(&mut self, references: Option<Vec<String>>) -> Called<Vec<usage::ImageCost>> {
        self.call(|session, handles| {
            let costs = session.costs(references.as_deref())?;
            Ok(costs.into_iter().map(|cost| convert::cost(cost, handles)).collect())
        })
    }

    fn reclaimable_bytes(&mut self, references: Vec<String>) -> Called<u64> {
        self.call(|session, _| session.reclaimable_bytes(&references))
    }

    fn get_history(&mut self, references: Option<Vec<String>>) -> Called<Vec<usage::ImageHistory>> {
        self.call(|session, handles| {
            let history = session.history(references.as_deref())?;
            Ok(history.into_iter().map(|history| convert::history(history, handles)).collect())
        })
    }

    fn disk(&mut self) -> Called<usage::DiskStatus> {
        self.call(|session, _| session.disk().map(convert::disk))
    }

    fn get_budget(&mut self) -> wasmtime::Result<usage::Budget> {
        let none = usage::Budget { removals: None, bytes: None };
        let budget = self.call_infallible("usage.get-budget", |session| Ok(Some(session.budget())))?;
        Ok(budget.map_or(none, convert::budget))
    }
}

impl report::Host for GuestState {
    fn log(&mut self, level: report::Level, message: String) -> wasmtime::Result<()> {
        self.call_infallible("report.log", |session| session.log(convert::level(level), &message))
    }

    fn explain(&mut self, reference: String, reason: String) -> wasmtime::Result<bool> {
        self.call_infallible("report.explain", |session| session.explain(&reference, reason))
    }
}
