//! One policy: a component, compiled, with its imports resolved, that can be run again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::guest::GuestState;
use super::instance::Instance;
use super::thread::{Cancellation, on_own_thread};
use super::v0_2::policy;
use super::{CompiledPolicy, Flavour, PolicyEngine};
use crate::plan::PlanPolicy;
use crate::policy::error::{PolicyError, one_line};
use crate::policy::limits::Limits;
use crate::reference::Digest;

/// A policy: a component that decides what of a cache goes. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    inner: Arc<Inner>,
}

struct Inner {
    engine: PolicyEngine,
    hash: Digest,
    /// For a flavour that is asked for later.
    bytes: Vec<u8>,
    compiled: Mutex<HashMap<Flavour, Slot>>,
    origin: CodeOrigin,
    description: OnceLock<Description>,
}

/// The policy in one flavour, once it is compiled. Who compiles it holds the lock, so that it is compiled once.
type Slot = Arc<Mutex<Option<CompiledPolicy>>>;

/// The origin of the machine code of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeOrigin {
    /// It was compiled now.
    Compiled,
    /// It was compiled before, and the code cache had it.
    Cached,
}

/// The description that a policy gives of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// A short name, such as `keep-recent`: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// A semantic version: 1 to 64 letters, digits, `-`, `+` and `.`.
    pub version: String,
    /// One sentence, of at most 1024 bytes.
    pub summary: String,
    /// The JSON Schema of its config, a JSON object or a boolean, of at most 256 KiB. It serves people and editors: the
    /// policy checks its config, the host does not. Its texts are as the policy wrote them.
    pub config_schema: serde_json::Value,
}

impl Policy {
    /// Compiles a component, or takes its code from the engine's code cache, on a thread of its own. Compiling takes
    /// from 10 ms for a policy in C to 10 s for one in Python, with all processors busy. A component that is handed over
    /// as a `Vec` is not copied.
    ///
    /// Dropping the future gives up the policy. A compilation that has begun is finished all the same, and its code goes
    /// into the code cache.
    ///
    /// # Errors
    /// [`NotAComponent`](PolicyError::NotAComponent), [`ForeignImport`](PolicyError::ForeignImport),
    /// [`WrongVersion`](PolicyError::WrongVersion), [`TooLarge`](PolicyError::TooLarge): each says what it is and what
    /// to do about it. [`Host`](PolicyError::Host) if the system provides no thread.
    pub async fn load(engine: &PolicyEngine, component: impl Into<Vec<u8>>) -> Result<Self, PolicyError> {
        let (engine, bytes) = (engine.clone(), component.into());
        on_own_thread(move |_| Self::compile(engine, bytes)).await
    }

    fn compile(engine: PolicyEngine, bytes: Vec<u8>) -> Result<Self, PolicyError> {
        engine.check(&bytes)?;
        let flavour = Flavour::of(&Limits::default());
        let compiled = engine.prepare(&bytes, flavour)?;
        let inner = Inner {
            engine,
            hash: Digest::of(&bytes),
            bytes,
            origin: compiled.origin,
            compiled: Mutex::new(HashMap::from([(flavour, Arc::new(Mutex::new(Some(compiled))))])),
            description: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the SHA-256 of the component, by which plans and the history name it.
    pub fn hash(&self) -> &Digest {
        &self.inner.hash
    }

    /// Returns whether loading it had to compile it.
    pub fn code_origin(&self) -> CodeOrigin {
        self.inner.origin
    }

    /// Returns what the policy says about itself. The first call, or the first run, runs its `describe` on a thread of its
    /// own, under the default limits or those of the run, and without access to anything. Later calls return the same.
    ///
    /// Dropping the future ends a `describe` that is running, with the next tick of the clock.
    ///
    /// # Errors
    /// [`Trapped`](PolicyError::Trapped), [`Limit`](PolicyError::Limit), or
    /// [`InvalidDescription`](PolicyError::InvalidDescription); [`Host`](PolicyError::Host) if the system provides no
    /// thread.
    pub async fn description(&self) -> Result<&Description, PolicyError> {
        if let Some(description) = self.inner.description.get() {
            return Ok(description);
        }
        let policy = self.clone();
        let describe = move |cancellation: &Cancellation| {
            policy.described_within(&Limits::default(), cancellation).cloned()
        };
        let description = on_own_thread(describe).await?;
        Ok(self.inner.description.get_or_init(|| description))
    }

    /// Returns the policy as plans and the history name it.
    ///
    /// # Errors
    /// Those of [`description`](Self::description).
    pub async fn identity(&self) -> Result<PlanPolicy, PolicyError> {
        Ok(self.identity_as(self.description().await?))
    }

    /// Returns the policy as plans and the history name it, by its description.
    pub(crate) fn identity_as(&self, description: &Description) -> PlanPolicy {
        let Description { name, version, .. } = description;
        PlanPolicy { name: name.clone(), version: version.clone(), hash: self.hash().to_string() }
    }

    /// Returns the description. Runs `describe` under these limits unless it has run before.
    pub(crate) fn described_within(
        &self,
        limits: &Limits,
        cancellation: &Cancellation,
    ) -> Result<&Description, PolicyError> {
        if let Some(description) = self.inner.description.get() {
            return Ok(description);
        }
        let compiled = self.compiled(Flavour::of(limits), cancellation)?;
        let state = GuestState::new(None, limits.clone());
        let mut instance = Instance::new(self.engine(), &compiled, state, Instant::now(), cancellation)?;
        let said =
            instance.enter("describe", |policy, store| policy.larder_image_policy().call_describe(store))?;
        let description = Description::read(said)?;
        Ok(self.inner.description.get_or_init(|| description))
    }

    pub(crate) fn engine(&self) -> &PolicyEngine {
        &self.inner.engine
    }

    /// Returns the policy in this flavour, compiled now if no run asked for it before. Runs of other flavours do not wait
    /// for that.
    pub(super) fn compiled(
        &self,
        flavour: Flavour,
        cancellation: &Cancellation,
    ) -> Result<CompiledPolicy, PolicyError> {
        // Map and slots are whole at every unlock.
        let slot = {
            let mut slots = self.inner.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(flavour).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = &*slot {
            return Ok(compiled.clone());
        }
        cancellation.check()?;
        let compiled = self.inner.engine.prepare(&self.inner.bytes, flavour)?;
        Ok(slot.insert(compiled).clone())
    }
}

impl Description {
    /// The largest config schema that is read, in bytes.
    const MAX_SCHEMA: usize = 256 << 10;

    /// Checks what a policy says about itself.
    ///
    /// # Errors
    /// [`PolicyError::InvalidDescription`] with the field that cannot be used.
    fn read(said: policy::Description) -> Result<Self, PolicyError> {
        let wrong =
            |field, problem: &str| PolicyError::InvalidDescription { field, problem: problem.to_owned() };
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
        if said.config_schema.len() > Self::MAX_SCHEMA {
            return Err(wrong("config-schema", "has to be at most 256 KiB"));
        }
        let schema: Result<serde_json::Value, _> = serde_json::from_str(&said.config_schema);
        let config_schema = match schema {
            Ok(schema) if schema.is_object() || schema.is_boolean() => schema,
            _ => return Err(wrong("config-schema", "has to be a JSON Schema: a JSON object or a boolean")),
        };
        Ok(Self { name: said.name, version: said.version, summary: one_line(&said.summary), config_schema })
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("hash", &self.inner.hash).finish_non_exhaustive()
    }
}
