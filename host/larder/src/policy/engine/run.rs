//! One run of a policy, and the plan that results from it.
//!
//! A run has a thread of its own (`thread.rs`), on which it goes through three steps:
//!
//! 1. It gets the policy [`Ready`]: described, and compiled for the limits of the run. That may take seconds, or wait
//!    for another run to finish compiling.
//! 2. It opens the state of the cache, so that a run never decides on a state from before the first step, and reads
//!    what can be known before the guest runs: the images, what is known of each, and their costs where a cap or a goal
//!    needs them.
//! 3. The guest runs, in a fresh instance (`instance.rs`). The clock of the limit `time` starts with this step, and
//!    stands still while the cache is read for the guest.

use std::time::{Duration, Instant};

use wasmtime::Engine;

use super::component::Policy;
use super::guest::GuestState;
use super::instance::Instance;
use super::thread::{Cancellation, on_own_thread};
use super::v0_2;
use super::{CompiledPolicy, Flavour};
use crate::plan::{Plan, PlanPolicy};
use crate::policy::error::{PolicyError, cut, one_line};
use crate::policy::limits::LimitKey;
use crate::policy::session::Session;
use crate::policy::session::access::Access;
use crate::policy::session::parameters::PolicyRun;
use crate::snapshot::CacheSnapshot;
use crate::units::ByteSize;

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// The plan: what the policy wants, as far as it may.
    pub plan: Plan,
    /// The measurements of the run.
    pub stats: RunStats,
}

/// The measurements of a run.
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

impl Policy {
    /// Runs the policy over a state of a cache, on a thread of its own.
    ///
    /// The policy cannot find out what will become of the plan. Dropping the future ends the guest with the next tick of
    /// the clock, and then drops the state.
    ///
    /// # Errors
    /// Whatever goes wrong, there is no plan: [`Failed`](PolicyError::Failed) with the policy's own words,
    /// [`Trapped`](PolicyError::Trapped), [`Limit`](PolicyError::Limit), [`OverBudget`](PolicyError::OverBudget),
    /// [`Source`](PolicyError::Source) where the cache could not be read; before it starts
    /// [`InvalidConfig`](PolicyError::InvalidConfig) and [`InvalidGrant`](PolicyError::InvalidGrant).
    pub async fn evaluate(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
    ) -> Result<Evaluation, PolicyError> {
        let (policy, run) = (self.clone(), run.clone());
        on_own_thread(move |cancellation| policy.ready(&run, cancellation)?.evaluate(source, &run)).await
    }

    /// Describes the policy and compiles it for the limits of a run, as far as neither was done before.
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate) before a run starts, and of a `describe` and a compilation.
    pub(crate) fn ready<'a>(
        &'a self,
        run: &PolicyRun,
        cancellation: &'a Cancellation,
    ) -> Result<Ready<'a>, PolicyError> {
        check_config(run.config())?;
        let rights = run.rights();
        rights.check()?;
        let identity = self.identity_as(self.described_within(&rights.limits, cancellation)?);
        let compiled = self.compiled(Flavour::of(&rights.limits), cancellation)?;
        // Preparing this thread for guests is not the guest's doing.
        Engine::tls_eager_initialize();
        cancellation.check()?;
        Ok(Ready { policy: self, identity, compiled, cancellation })
    }
}

/// A policy that can run at once, any number of times, under the limits that it was compiled for.
pub(crate) struct Ready<'a> {
    policy: &'a Policy,
    identity: PlanPolicy,
    compiled: CompiledPolicy,
    cancellation: &'a Cancellation,
}

impl Ready<'_> {
    /// Runs the policy over a state of a cache.
    ///
    /// # Errors
    /// Those of [`Policy::evaluate`].
    pub(crate) fn evaluate(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
    ) -> Result<Evaluation, PolicyError> {
        self.evaluate_and(source, run, |_| Ok(())).map(|(evaluation, ())| evaluation)
    }

    /// Runs the policy over a state of a cache. Calls `look` with the session of a run that succeeded, after its plan was
    /// made, and returns what that returns.
    ///
    /// # Errors
    /// Those of [`Policy::evaluate`] and of `look`.
    pub(crate) fn evaluate_and<T>(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
        look: impl FnOnce(Session) -> Result<T, PolicyError>,
    ) -> Result<(Evaluation, T), PolicyError> {
        let rights = run.rights();
        let limits = rights.limits.clone();
        let began = Instant::now();
        let session = Session::new(source, Access::new(rights, run.now()), run.goal())?;
        let state = GuestState::new(Some(session), limits.clone());
        let request = v0_2::policy::Request {
            now: v0_2::datetime(run.now()),
            config: run.config().to_string(),
            goal_bytes: run.goal().map(ByteSize::as_bytes),
        };
        let started = Instant::now();
        let mut instance =
            Instance::new(self.policy.engine(), &self.compiled, state, started, self.cancellation)?;
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
            return Err(PolicyError::limit(LimitKey::Time, &limits));
        }
        answer.map_err(|message| PolicyError::Failed(shorten(&message)))?;
        let fuel = limits.fuel.and_then(|given| Some(given.saturating_sub(instance.store.get_fuel().ok()?)));
        let GuestState { session, host_calls, memory, .. } = instance.store.into_data();
        let Some(mut session) = session else {
            // It was put there above, and nothing takes it out.
            return Err(PolicyError::Host("the run lost its session".to_owned()));
        };
        let log_bytes = session.log_bytes;
        let plan = session.plan(self.identity.clone(), run)?;
        let seen = look(session)?;
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
        Ok((Evaluation { plan, stats }, seen))
    }
}

/// Refuses a config that is not a JSON object.
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

/// Returns the policy's own words, as far as a person reads them. They are cut before anything else is done with them.
fn shorten(message: &str) -> String {
    const LONGEST: usize = 4096;
    let short = cut(message, LONGEST);
    one_line(short) + if short.len() < message.len() { "…" } else { "" }
}
