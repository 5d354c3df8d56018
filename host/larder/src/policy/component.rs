//! One policy: a component, compiled, with its imports resolved, that can be run again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::engine::{CompiledPolicy, Flavour, PolicyEngine};
use super::error::PolicyError;
use super::grant::Limits;
use crate::plan::PlanPolicy;
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
    bytes: Box<[u8]>,
    compiled: Mutex<HashMap<Flavour, Slot>>,
    origin: CodeOrigin,
    description: OnceLock<Description>,
}

/// The policy in one flavour, once it is compiled. Who compiles it holds the lock, so that it is compiled once.
type Slot = Arc<Mutex<Option<CompiledPolicy>>>;

/// Where the machine code of a policy came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeOrigin {
    /// It was compiled now.
    Compiled,
    /// It was compiled before, and the code cache had it.
    Cached,
}

/// What a policy says about itself.
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
    /// Compiles a component, or takes its code from the engine's code cache. Compiling takes from 10 ms for a policy
    /// in C to 10 s for one in Python, all processors busy.
    ///
    /// # Errors
    /// [`NotAComponent`](PolicyError::NotAComponent), [`ForeignImport`](PolicyError::ForeignImport),
    /// [`WrongVersion`](PolicyError::WrongVersion), [`TooLarge`](PolicyError::TooLarge): each says what it is and what
    /// to do about it.
    pub fn load(engine: &PolicyEngine, bytes: &[u8]) -> Result<Self, PolicyError> {
        engine.check(bytes)?;
        let flavour = Flavour::of(&Limits::default());
        let compiled = engine.prepare(bytes, flavour)?;
        let inner = Inner {
            engine: engine.clone(),
            hash: Digest::of(bytes),
            bytes: bytes.into(),
            origin: compiled.origin,
            compiled: Mutex::new(HashMap::from([(flavour, Arc::new(Mutex::new(Some(compiled))))])),
            description: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The SHA-256 of the component: what a plan and the history call it by.
    pub fn hash(&self) -> &Digest {
        &self.inner.hash
    }

    /// Whether loading it had to compile it.
    pub fn code_origin(&self) -> CodeOrigin {
        self.inner.origin
    }

    /// What the policy says about itself. The first call, or the first run, runs its `describe`, under the default
    /// limits or that run's and without access to anything; later calls return the same.
    ///
    /// # Errors
    /// [`Trapped`](PolicyError::Trapped), [`Limit`](PolicyError::Limit), or
    /// [`InvalidDescription`](PolicyError::InvalidDescription).
    pub fn description(&self) -> Result<&Description, PolicyError> {
        self.description_within(&Limits::default())
    }

    /// The description; where it has to be asked for, under these limits.
    pub(super) fn description_within(&self, limits: &Limits) -> Result<&Description, PolicyError> {
        if let Some(description) = self.inner.description.get() {
            return Ok(description);
        }
        let description = super::run::describe(self, limits)?;
        Ok(self.inner.description.get_or_init(|| description))
    }

    /// Returns the policy as plans and the history name it.
    ///
    /// # Errors
    /// Those of [`description`](Self::description).
    pub fn identity(&self) -> Result<PlanPolicy, PolicyError> {
        let Description { name, version, .. } = self.description()?;
        Ok(PlanPolicy { name: name.clone(), version: version.clone(), hash: self.hash().to_string() })
    }

    pub(super) fn engine(&self) -> &PolicyEngine {
        &self.inner.engine
    }

    /// Returns the policy in this flavour, compiled now if no run asked for it before. Runs of other flavours do not wait
    /// for that.
    pub(super) fn compiled(&self, flavour: Flavour) -> Result<CompiledPolicy, PolicyError> {
        // Map and slots are whole at every unlock.
        let slot = {
            let mut slots = self.inner.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(flavour).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = &*slot {
            return Ok(compiled.clone());
        }
        let compiled = self.inner.engine.prepare(&self.inner.bytes, flavour)?;
        Ok(slot.insert(compiled).clone())
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("hash", &self.inner.hash).finish_non_exhaustive()
    }
}
