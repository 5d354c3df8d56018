//! One instance of a policy: made afresh for one call, with every limit in place, and dropped after it.
//!
//! The limits stand before the instance is made, since a component can run code while it is. The store, and with it
//! everything that the guest has, is dropped at the end of every run, good or bad. Nothing of one run is seen by the
//! next. At each tick of the clock, a guest is ended whose time is up, or whose run was cancelled.

use std::fmt::{self, Write as _};
use std::time::Instant;

use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace};

use super::guest::GuestState;
use super::thread::Cancellation;
use super::ticker::Running;
use super::v0_2;
use super::{CompiledPolicy, PolicyEngine};
use crate::policy::error::{PolicyError, one_line, short_name};
use crate::policy::limits::{LimitKey, Limits};

/// A policy that is being run.
pub(super) struct Instance {
    pub(super) store: Store<GuestState>,
    policy: v0_2::ImagePolicy,
    /// Makes the deadline count.
    _clock: Running,
}

impl Instance {
    /// Makes an instance, whose limit `time` counts from `started`.
    ///
    /// # Errors
    /// Fails if the component breaks off, exceeds a limit or is cancelled before its instance is made.
    pub(super) fn new(
        engine: &PolicyEngine,
        compiled: &CompiledPolicy,
        state: GuestState,
        started: Instant,
        cancellation: &Cancellation,
    ) -> Result<Self, PolicyError> {
        let during = if state.session.is_some() { "evaluate" } else { "describe" };
        let clock = engine.clock()?;
        let mut store = store(compiled, state, started, cancellation.clone())?;
        match compiled.policy.instantiate(&mut store) {
            Ok(policy) => Ok(Self { store, policy, _clock: clock }),
            Err(error) => Err(diagnose(&error, store.data_mut(), during)),
        }
    }

    /// Calls one of the policy's functions, the one that errors are to name.
    ///
    /// # Errors
    /// Fails if the policy breaks off, exceeds a limit or is cancelled.
    pub(super) fn enter<T>(
        &mut self,
        during: &'static str,
        call: impl FnOnce(&v0_2::ImagePolicy, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, PolicyError> {
        let result = call(&self.policy, &mut self.store);
        result.map_err(|error| diagnose(&error, self.store.data_mut(), during))
    }
}

/// Makes the store of one instance, with every limit in place.
fn store(
    compiled: &CompiledPolicy,
    state: GuestState,
    started: Instant,
    cancellation: Cancellation,
) -> Result<Store<GuestState>, PolicyError> {
    let Limits { time, transfer, fuel, .. } = state.limits;
    // No deadline where it lies beyond what the clock can count to.
    let deadline = started.checked_add(time);
    let mut store = Store::new(&compiled.engine, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(transfer.as_len());
    // The contract has no resources.
    store.set_max_component_handles(MAX_HANDLES);
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).map_err(|error| PolicyError::Host(error.to_string()))?;
    }
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut store: StoreContextMut<'_, GuestState>| {
        let state = store.data_mut();
        if let Err(cancelled) = cancellation.check() {
            return Err(state.stop(cancelled));
        }
        let deadline = deadline.and_then(|deadline| deadline.checked_add(state.reading()));
        if deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return Ok(UpdateDeadline::Continue(1));
        }
        let error = PolicyError::limit(LimitKey::Time, &state.limits);
        Err(state.stop(error))
    });
    Ok(store)
}

/// Component-model handles that may live at once: enough for what a language's runtime does by itself.
const MAX_HANDLES: usize = 1024;

/// Returns why a run ended, in terms of the policy and its grant.
fn diagnose(error: &wasmtime::Error, state: &mut GuestState, during: &'static str) -> PolicyError {
    if let Some(error) = state.stopped.take() {
        return error;
    }
    let limit = |key| PolicyError::limit(key, &state.limits);
    let trap = error.downcast_ref::<Trap>().copied();
    match trap {
        Some(Trap::StackOverflow) => return limit(LimitKey::Stack),
        Some(Trap::OutOfFuel) => return limit(LimitKey::Fuel),
        Some(Trap::Interrupt) => return limit(LimitKey::Time),
        _ => {}
    }
    if let Some(key) = state.exhausted {
        return limit(key);
    }
    let root = error.root_cause().to_string();
    // The engine has no types for these two; tests hold its words.
    if root.contains("fuel allocated for hostcalls has been exhausted") {
        return limit(LimitKey::Transfer);
    }
    if root.starts_with("resource limit exceeded") {
        return limit(LimitKey::Instances);
    }
    let cause = match trap {
        Some(Trap::UnreachableCodeReached) => {
            "it gave up (a panic, an abort or a failed assertion)".to_owned()
        }
        Some(Trap::MemoryOutOfBounds) => "it reached outside its memory".to_owned(),
        Some(Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature) => {
            "it called a function that is not there".to_owned()
        }
        Some(Trap::IntegerDivisionByZero) => "it divided by zero".to_owned(),
        Some(Trap::IntegerOverflow | Trap::BadConversionToInteger) => "a number did not fit".to_owned(),
        Some(other) => one_line(other.to_string().trim_start_matches("wasm trap: ")),
        None => format!("it handed over what the contract does not allow ({})", one_line(&root)),
    };
    PolicyError::Trapped { during, cause, backtrace: backtrace(error) }
}

/// Returns the policy's own functions at the time of an error, innermost first; empty where it was built without names.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    frames.iter().filter_map(|frame| frame.func_name()).map(function_name).collect()
}

/// Returns a function's name as it was written in Rust, as far as it is shown.
fn function_name(name: &str) -> String {
    /// Takes no more than is shown: a name of a few kilobytes may stand for megabytes.
    struct Beginning(String);

    impl fmt::Write for Beginning {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.push_str(text);
            if self.0.len() > 1024 { Err(fmt::Error) } else { Ok(()) }
        }
    }

    let mut beginning = Beginning(String::new());
    // It ends where enough is written.
    let _ = write!(beginning, "{:#}", rustc_demangle::demangle(name));
    short_name(&beginning.0)
}
