//! Policies: from bytes to something that can be run.
//!
//! A [`PolicyEngine`] holds what all policies share, a [`Policy`] one compiled component with its imports resolved.
//! Both are cheap to clone and can be used from many threads. The linker holds `larder:image` and nothing else; there
//! is no WASI, not even an empty one, and no way to add to it.
//!
//! # What a component may use
//!
//! WebAssembly without threads, 64-bit memories, garbage collection, exceptions and stack switching, and with results
//! that are the same on every machine: NaNs are canonical and relaxed SIMD is deterministic. Its size is checked
//! before it is compiled.
//!
//! # Flavours
//!
//! Counting fuel and the size of the stack are decided when code is compiled or an engine is made, not per run. So
//! the limits `fuel` and `stack` choose a [`Flavour`], and a policy is compiled once for each flavour that its runs
//! ask for: in practice the default one when it is loaded, and at most one more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine};

use super::bindings::{ImagePolicy, ImagePolicyPre};
use super::error::PolicyError;
use super::grant::Limits;
use super::host::RunState;
use super::load;
use super::ticker::{Running, Ticker};
use super::units::ByteSize;
use crate::reference::Digest;

/// The largest component that is compiled, unless an engine is told otherwise. A Python policy has 19 MB.
const MAX_COMPONENT: ByteSize = ByteSize::mib(64);

/// What all policies of a process share: compiler settings, the imports, the clock. One per process is enough.
#[derive(Clone)]
pub struct PolicyEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// Made when first asked for, and few: see the module's header.
    flavours: Mutex<HashMap<Flavour, Flavoured>>,
    ticker: Ticker,
    max_component: ByteSize,
}

#[derive(Clone)]
struct Flavoured {
    engine: Engine,
    linker: Arc<Linker<RunState>>,
}

/// The limits that an engine is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flavour {
    counts_fuel: bool,
    stack: ByteSize,
}

impl Flavour {
    pub(super) fn of(limits: &Limits) -> Self {
        Self { counts_fuel: limits.fuel.is_some(), stack: limits.stack }
    }
}

impl PolicyEngine {
    /// An engine that compiles components of at most 64 MiB.
    ///
    /// # Errors
    /// [`PolicyError::Host`] where this machine cannot run compiled WebAssembly.
    pub fn new() -> Result<Self, PolicyError> {
        Self::with_max_component(MAX_COMPONENT)
    }

    /// An engine that compiles components of at most this size.
    ///
    /// # Errors
    /// [`PolicyError::Host`] where this machine cannot run compiled WebAssembly.
    pub fn with_max_component(max_component: ByteSize) -> Result<Self, PolicyError> {
        let shared = Shared { flavours: Mutex::default(), ticker: Ticker::default(), max_component };
        let engine = Self { shared: Arc::new(shared) };
        engine.flavoured(Flavour::of(&Limits::default()))?;
        Ok(engine)
    }

    /// Makes the clock tick for a run.
    pub(super) fn clock(&self) -> Result<Running, PolicyError> {
        let cannot = |error| PolicyError::Host(format!("it has no thread for the clock: {error}"));
        self.shared.ticker.run().map_err(cannot)
    }

    fn flavoured(&self, flavour: Flavour) -> Result<Flavoured, PolicyError> {
        // The map is whole at every unlock: an entry goes in at the end or not at all.
        let mut flavours = self.shared.flavours.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flavoured) = flavours.get(&flavour) {
            return Ok(flavoured.clone());
        }
        let cannot = |error: wasmtime::Error| PolicyError::Host(format!("{error:#}"));
        let engine = Engine::new(&config(flavour)).map_err(cannot)?;
        let mut linker = Linker::new(&engine);
        ImagePolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(cannot)?;
        self.shared.ticker.add(engine.clone());
        let flavoured = Flavoured { engine, linker: Arc::new(linker) };
        flavours.insert(flavour, flavoured.clone());
        Ok(flavoured)
    }

    /// Compiles a component and resolves its imports.
    fn prepare(&self, bytes: &[u8], flavour: Flavour) -> Result<Prepared, PolicyError> {
        let Flavoured { engine, linker } = self.flavoured(flavour)?;
        let component = Component::new(&engine, bytes).map_err(|error| load::damaged(&error))?;
        load::check_world(&engine, &component)?;
        let instance = linker.instantiate_pre(&component).map_err(|_| load::other_types())?;
        let policy = ImagePolicyPre::new(instance).map_err(|_| load::other_types())?;
        Ok(Prepared { engine, policy })
    }
}

fn config(flavour: Flavour) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(flavour.counts_fuel)
        .max_wasm_stack(flavour.stack.as_len())
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_stack_switching(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true);
    config
}

/// A policy that is compiled for one flavour.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) engine: Engine,
    pub(super) policy: ImagePolicyPre<RunState>,
}

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
    prepared: Mutex<HashMap<Flavour, Prepared>>,
    description: OnceLock<Description>,
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
    /// The JSON Schema of its config, a JSON object or a boolean.
    pub config_schema: serde_json::Value,
}

impl Policy {
    /// Compiles a component. This takes from 10 ms for a policy in C to 10 s for one in Python, all processors busy.
    ///
    /// # Errors
    /// [`NotAComponent`](PolicyError::NotAComponent), [`ForeignImport`](PolicyError::ForeignImport),
    /// [`WrongVersion`](PolicyError::WrongVersion), [`TooLarge`](PolicyError::TooLarge): each says what it is and what
    /// to do about it.
    pub fn load(engine: &PolicyEngine, bytes: &[u8]) -> Result<Self, PolicyError> {
        let (size, cap) = (ByteSize::bytes(bytes.len() as u64), engine.shared.max_component);
        if size > cap {
            return Err(PolicyError::TooLarge { size, cap });
        }
        load::check_header(bytes)?;
        let flavour = Flavour::of(&Limits::default());
        let prepared = engine.prepare(bytes, flavour)?;
        let inner = Inner {
            engine: engine.clone(),
            hash: Digest::of(bytes),
            bytes: bytes.into(),
            prepared: Mutex::new(HashMap::from([(flavour, prepared)])),
            description: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The SHA-256 of the component: what a plan and the history call it by.
    pub fn hash(&self) -> &Digest {
        &self.inner.hash
    }

    /// What the policy says about itself. The first call runs its `describe`, under the default limits and without
    /// access to anything; later calls return the same.
    ///
    /// # Errors
    /// [`Trapped`](PolicyError::Trapped), [`Limit`](PolicyError::Limit), or
    /// [`InvalidDescription`](PolicyError::InvalidDescription).
    pub fn description(&self) -> Result<&Description, PolicyError> {
        if let Some(description) = self.inner.description.get() {
            return Ok(description);
        }
        let description = super::run::describe(self)?;
        Ok(self.inner.description.get_or_init(|| description))
    }

    pub(super) fn engine(&self) -> &PolicyEngine {
        &self.inner.engine
    }

    /// The policy for these limits, compiled now where no run asked for such limits before.
    pub(super) fn prepared(&self, limits: &Limits) -> Result<Prepared, PolicyError> {
        let flavour = Flavour::of(limits);
        // The map is whole at every unlock. Holding it while compiling makes concurrent runs compile once.
        let mut prepared = self.inner.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = prepared.get(&flavour) {
            return Ok(prepared.clone());
        }
        let new = self.inner.engine.prepare(&self.inner.bytes, flavour)?;
        prepared.insert(flavour, new.clone());
        Ok(new)
    }
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine")
            .field("max_component", &self.shared.max_component)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("hash", &self.inner.hash).finish_non_exhaustive()
    }
}
