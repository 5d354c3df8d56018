//! One run of a policy: its parameters, its limits, and the plan that results from it.
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

use chrono::{DateTime, Utc};
use wasmtime::Engine;

use super::component::Policy;
use super::guest::GuestState;
use super::instance::Instance;
use super::thread::{Cancellation, on_own_thread};
use super::v0_2;
use super::{CompiledPolicy, Flavour};
use crate::plan::{Plan, PlanPolicy};
use crate::policy::error::{PolicyError, cut, one_line};
use crate::policy::grant::{GrantDocument, Guard};
use crate::policy::limits::LimitKey;
use crate::policy::session::Session;
use crate::policy::session::access::Access;
use crate::snapshot::CacheSnapshot;
use crate::units::ByteSize;

/// The parameters of a run.
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
    /// The guard that holds in addition to the grant's own.
    guard: Guard,
    now: DateTime<Utc>,
}

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

impl PolicyRun {
    /// Returns a run at this instant, without config and with the grant that changes nothing.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self::preview(now).with_grant(GrantDocument::default())
    }

    /// Returns a preview at this instant, without config: see [`PolicyRun`].
    pub fn preview(now: DateTime<Utc>) -> Self {
        let config = serde_json::Value::Object(serde_json::Map::new());
        Self { config, grant: None, goal: None, guard: Guard::default(), now }
    }

    /// Returns the same run with this config, which has to be a JSON object. Whether it suits the policy, the policy says.
    #[must_use]
    pub fn with_config(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Returns the same run under this grant, and so no preview.
    #[must_use]
    pub fn with_grant(mut self, grant: GrantDocument) -> Self {
        self.grant = Some(grant);
        self
    }

    /// Returns the same run with a goal: so many allocated bytes are to be freed. The plan removes the first of what the policy
    /// stages that free so much together, and keeps the rest.
    #[must_use]
    pub fn with_goal(mut self, goal: ByteSize) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Returns the same run, with what this guard keeps, in addition to what was kept so far. That of a home is added by
    /// [`LocalBackend::plan_policy`](crate::LocalBackend::plan_policy).
    #[must_use]
    pub fn with_guard(mut self, guard: &Guard) -> Self {
        self.guard = self.guard.and(guard);
        self
    }

    /// Returns the rights, limits and guard of the run: the grant, or what a preview may, with everything that stays.
    pub(crate) fn rights(&self) -> GrantDocument {
        let mut rights = self.grant.clone().unwrap_or_else(GrantDocument::preview);
        rights.guard = rights.guard.and(&self.guard);
        rights
    }

    /// Returns the config.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// Returns the grant; absent for a preview.
    pub fn grant(&self) -> Option<&GrantDocument> {
        self.grant.as_ref()
    }

    /// Returns the goal.
    pub fn goal(&self) -> Option<ByteSize> {
        self.goal
    }

    /// Returns the instant that counts as now.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }
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
        check_config(&run.config)?;
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

    /// Runs the policy over a state of a cache. Calls `look` with the session of a run that succeeded, before its plan is
    /// made, and returns what that returns.
    ///
    /// # Errors
    /// Those of [`Policy::evaluate`] and of `look`.
    pub(crate) fn evaluate_and<T>(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
        look: impl FnOnce(&mut Session) -> Result<T, PolicyError>,
    ) -> Result<(Evaluation, T), PolicyError> {
        let PolicyRun { config, goal, now, .. } = run;
        let rights = run.rights();
        let limits = rights.limits.clone();
        let began = Instant::now();
        let session = Session::new(source, Access::new(rights, *now), *goal)?;
        let state = GuestState::new(Some(session), limits.clone());
        let request = v0_2::policy::Request {
            now: v0_2::datetime(*now),
            config: config.to_string(),
            goal_bytes: goal.map(ByteSize::as_bytes),
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
        let seen = look(&mut session)?;
        let plan = session.into_plan(self.identity.clone(), run)?;
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
