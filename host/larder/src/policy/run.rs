//! One run of a policy: a fresh instance, its limits, and the plan that comes of it.
//!
//! What can be known before the run is read before it: the images, what is known of each, and their costs where a cap or
//! a goal needs them. The clock of the limit `time` starts after that, and stands still while the cache is read for the
//! guest.
//!
//! The limits stand before the instance is made, since a component can run code while it is. The store, and with it
//! everything that the guest has, is dropped at the end of every run, good or bad. Nothing of one run is seen by the
//! next.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace};

use super::access::Access;
use super::component::{Description, Policy};
use super::engine::{CompiledPolicy, Flavour};
use super::error::{PolicyError, cut, one_line, short_name};
use super::grant::{GrantDocument, Guard, Limits};
use super::guest::GuestState;
use super::limits::LimitKey;
use super::session::Session;
use super::suggest::Needs;
use super::v0_2;
use crate::plan::Plan;
use crate::snapshot::CacheSnapshot;
use crate::units::ByteSize;

/// What a run is given.
///
/// A run has a grant, or it is a preview. A preview shows what the policy would remove if it might: the policy has every
/// right except `force`, and the guards of home and run, the default limits and pins hold. No [`Plan`] of a preview can be
/// applied, since nobody allowed any of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRun {
    config: serde_json::Value,
    /// Absent for a preview.
    grant: Option<GrantDocument>,
    goal: Option<ByteSize>,
    /// What stays besides what the grant's own guard keeps.
    guard: Guard,
    now: DateTime<Utc>,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// What the policy wants, as far as it may.
    pub plan: Plan,
    /// What the run took.
    pub stats: RunStats,
    /// What of its rights the policy made use of.
    pub(super) needs: Needs,
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStats {
    /// Wall time, reading the cache included, compiling not.
    pub duration: Duration,
    /// The part of it that making a fresh instance took.
    pub instantiate: Duration,
    /// The part of it that the policy's `evaluate` took, its calls to the host included.
    pub evaluate: Duration,
    /// The part of `evaluate` that the cache took to read. The limit `time` does not count it.
    pub reading: Duration,
    /// Calls to the host.
    pub host_calls: u64,
    /// Log lines, in bytes as `log` in `[limits]` counts them.
    pub log_bytes: u64,
    /// Fuel, where it was counted.
    pub fuel: Option<u64>,
    /// Bytes of all memories of the policy at the end, when they are largest.
    pub memory_bytes: u64,
}

impl PolicyRun {
    /// A run at this instant, without config and with the grant that changes nothing.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self::preview(now).with_grant(GrantDocument::default())
    }

    /// A preview at this instant, without config: see [`PolicyRun`].
    pub fn preview(now: DateTime<Utc>) -> Self {
        let config = serde_json::Value::Object(serde_json::Map::new());
        Self { config, grant: None, goal: None, guard: Guard::default(), now }
    }

    /// The same with this config, which has to be a JSON object. Whether it suits the policy, the policy says.
    #[must_use]
    pub fn with_config(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// The same under this grant, and so no preview.
    #[must_use]
    pub fn with_grant(mut self, grant: GrantDocument) -> Self {
        self.grant = Some(grant);
        self
    }

    /// The same with a goal: so many allocated bytes are to be freed. The plan removes the first of what the policy
    /// stages that free so much together, and keeps the rest.
    #[must_use]
    pub fn with_goal(mut self, goal: ByteSize) -> Self {
        self.goal = Some(goal);
        self
    }

    /// The same, with what this guard keeps, in addition to what was kept so far. That of a home is added by
    /// [`LocalBackend::plan_policy`](crate::LocalBackend::plan_policy).
    #[must_use]
    pub fn with_guard(mut self, guard: &Guard) -> Self {
        self.guard = self.guard.and(guard);
        self
    }

    /// The rights, limits and guard of the run: the grant, or what a preview may, with everything that stays.
    pub(super) fn rights(&self) -> GrantDocument {
        let mut rights = self.grant.clone().unwrap_or_else(GrantDocument::preview);
        rights.guard = rights.guard.and(&self.guard);
        rights
    }

    /// The config.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// The grant; absent for a preview.
    pub fn grant(&self) -> Option<&GrantDocument> {
        self.grant.as_ref()
    }

    /// The goal.
    pub fn goal(&self) -> Option<ByteSize> {
        self.goal
    }

    /// The instant that counts as now.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }
}

impl Policy {
    /// Runs the policy over a state of a cache. This blocks, for up to the limit `time` and what the state takes to
    /// read, so asynchronous code calls it on a thread that may block.
    ///
    /// The policy cannot find out what will become of the plan.
    ///
    /// # Errors
    /// Whatever goes wrong, there is no plan: [`Failed`](PolicyError::Failed) with the policy's own words,
    /// [`Trapped`](PolicyError::Trapped), [`Limit`](PolicyError::Limit), [`OverBudget`](PolicyError::OverBudget),
    /// [`Source`](PolicyError::Source) where the cache could not be read; before it starts
    /// [`InvalidConfig`](PolicyError::InvalidConfig) and [`InvalidGrant`](PolicyError::InvalidGrant).
    pub fn evaluate(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
    ) -> Result<Evaluation, PolicyError> {
        let PolicyRun { config, goal, now, .. } = run;
        check_config(config)?;
        let rights = run.rights();
        rights.check()?;
        let limits = &rights.limits;
        self.description_within(limits)?;
        let policy = self.identity()?;
        // Before the clock of this run starts: compiling is not the policy's doing.
        let compiled = self.compiled(Flavour::of(limits))?;
        let began = Instant::now();
        let session = Session::new(source, Access::new(rights.clone(), *now), *goal)?;
        let state = GuestState::new(Some(session), limits.clone());
        let request = v0_2::policy::Request {
            now: v0_2::datetime(*now),
            config: config.to_string(),
            goal_bytes: goal.map(ByteSize::as_bytes),
        };
        let started = Instant::now();
        let mut instance = Instance::new(self, &compiled, state, started)?;
        let evaluating = Instant::now();
        let answer = instance
            .enter("evaluate", |policy, store| policy.larder_image_policy().call_evaluate(store, &request));
        let evaluate = evaluating.elapsed();
        let answer = match answer {
            Err(limit @ PolicyError::Limit { .. }) => return Err(limit),
            answer => answer,
        };
        // A policy that is told of its caps may fail or break off because of them: the caps are the reason.
        if let Some(error) = instance.store.data().session.as_ref().and_then(Session::over_budget) {
            return Err(error);
        }
        let answer = answer?;
        let reading = instance.store.data().reading();
        if started.elapsed().saturating_sub(reading) > limits.time {
            // A call to the host outlasted the deadline, and the guest returned before its clock ticked.
            return Err(PolicyError::limit(LimitKey::Time, limits));
        }
        answer.map_err(|message| PolicyError::Failed(shorten(&message)))?;
        let fuel = limits.fuel.and_then(|given| Some(given.saturating_sub(instance.store.get_fuel().ok()?)));
        let GuestState { session, host_calls, memory, .. } = instance.store.into_data();
        let Some(session) = session else {
            // It was put there above, and nothing takes it out.
            return Err(PolicyError::Host("the run lost its session".to_owned()));
        };
        let log_bytes = session.log_bytes;
        let needs = session.needs();
        let plan = session.into_plan(policy, run)?;
        let stats = RunStats {
            duration: began.elapsed(),
            instantiate: evaluating.duration_since(started),
            evaluate,
            reading,
            host_calls,
            log_bytes,
            fuel,
            memory_bytes: memory,
        };
        Ok(Evaluation { plan, stats, needs })
    }
}

/// Runs `describe` under these limits, without access to anything.
pub(super) fn describe(policy: &Policy, limits: &Limits) -> Result<Description, PolicyError> {
    let compiled = policy.compiled(Flavour::of(limits))?;
    let state = GuestState::new(None, limits.clone());
    let mut instance = Instance::new(policy, &compiled, state, Instant::now())?;
    let said =
        instance.enter("describe", |policy, store| policy.larder_image_policy().call_describe(store))?;
    let wrong = |field, problem: &str| PolicyError::InvalidDescription { field, problem: problem.to_owned() };
    let is_word = |text: &str, also: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        (1..=64).contains(&text.len()) && text.chars().all(allowed)
    };
    if !is_word(&said.name, "-_.") {
        return Err(wrong("name", "has to be 1 to 64 letters, digits, `-`, `_` and `.`"));
    }
    if !is_word(&said.version, "-+.") {
        return Err(wrong("version", "has to be a semantic version, such as `1.2.0`"));
    }
    if said.summary.len() > 1024 {
        return Err(wrong("summary", "has to be one sentence, of at most 1024 bytes"));
    }
    // Before it is parsed, which takes many times its size.
    if said.config_schema.len() > MAX_SCHEMA {
        return Err(wrong("config-schema", "has to be at most 256 KiB"));
    }
    let schema: Result<serde_json::Value, _> = serde_json::from_str(&said.config_schema);
    let config_schema = match schema {
        Ok(schema) if schema.is_object() || schema.is_boolean() => schema,
        _ => return Err(wrong("config-schema", "has to be a JSON Schema: a JSON object or a boolean")),
    };
    Ok(Description {
        name: said.name,
        version: said.version,
        summary: one_line(&said.summary),
        config_schema,
    })
}

/// The largest config schema that is read, in bytes.
const MAX_SCHEMA: usize = 256 << 10;

/// A policy that is being run.
struct Instance {
    store: Store<GuestState>,
    policy: v0_2::ImagePolicy,
    /// Makes the deadline count.
    _clock: super::ticker::Running,
}

impl Instance {
    /// Makes a fresh instance.
    fn new(
        policy: &Policy,
        compiled: &CompiledPolicy,
        state: GuestState,
        started: Instant,
    ) -> Result<Self, PolicyError> {
        let during = if state.session.is_some() { "evaluate" } else { "describe" };
        let clock = policy.engine().clock()?;
        let mut store = store(compiled, state, started)?;
        match compiled.policy.instantiate(&mut store) {
            Ok(policy) => Ok(Self { store, policy, _clock: clock }),
            Err(error) => Err(diagnose(&error, store.data_mut(), during)),
        }
    }

    fn enter<T>(
        &mut self,
        during: &'static str,
        call: impl FnOnce(&v0_2::ImagePolicy, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, PolicyError> {
        let result = call(&self.policy, &mut self.store);
        result.map_err(|error| diagnose(&error, self.store.data_mut(), during))
    }
}

/// A store for one instance, with every limit in place.
fn store(
    compiled: &CompiledPolicy,
    state: GuestState,
    started: Instant,
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

/// Why a run ended, in terms of the policy and its grant.
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

/// The policy's own functions at the time of an error, innermost first; empty where it was built without names.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    frames.iter().filter_map(|frame| frame.func_name()).map(function_name).collect()
}

/// A function's name as it was written in Rust, as far as it is shown.
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

fn check_config(config: &serde_json::Value) -> Result<(), PolicyError> {
    use serde_json::Value;
    Err(PolicyError::InvalidConfig(match config {
        Value::Object(_) => return Ok(()),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
    }))
}

/// The policy's own words, as far as a person reads them. They are cut before anything else is done with them.
fn shorten(message: &str) -> String {
    const LONGEST: usize = 4096;
    let short = cut(message, LONGEST);
    one_line(short) + if short.len() < message.len() { "…" } else { "" }
}
