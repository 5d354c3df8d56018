//! What all policies of a process share: compiler settings, the imports, the clock, and where compiled code is kept.
//!
//! One [`PolicyEngine`] for a process is enough: it is cheap to clone and can be used from many threads. The linker
//! holds `larder:image` and nothing else; there is no WASI, not even an empty one, and no way to add to it.
//!
//! # What a component may use
//!
//! WebAssembly without threads, 64-bit memories, garbage collection, exceptions and stack switching, and with results
//! that are the same on every machine: NaNs are canonical and relaxed SIMD is deterministic. Its size and the names
//! of its imports and exports are checked before it is compiled.
//!
//! # Flavours
//!
//! Counting fuel and the size of the stack are decided when code is compiled, not per run. So the limits `fuel` and
//! `stack` choose a [`Flavour`], and a policy is compiled once for each flavour that its runs ask for: in practice the
//! default one when it is loaded, and at most one more. Who compiles holds no lock but that of this policy in this
//! flavour (`component.rs`).
//!
//! Instances take their memory from the system as they need it. A pool of them would save some tens of microseconds of
//! runs that take milliseconds, and would have an end.

mod code_cache;
pub(super) mod component;
mod guest;
mod instance;
mod load;
pub(super) mod local;
pub(super) mod run;
pub(super) mod surface;
pub(super) mod thread;
mod ticker;
mod v0_2;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine};

use self::code_cache::{CodeCache, CodeKey};
use self::component::CodeOrigin;
use self::guest::GuestState;
use self::thread::on_own_thread;
use self::ticker::{Running, Ticker};
use self::v0_2::{ImagePolicy, ImagePolicyPre};
use crate::failpoint::failpoint;
use crate::policy::error::PolicyError;
use crate::policy::grant::Limits;
use crate::units::ByteSize;

/// The largest component that is compiled, unless an engine is told otherwise. A Python policy has 19 MB.
const MAX_COMPONENT: ByteSize = ByteSize::mib(64);

/// The common part of all policies of a process: compiler settings, imports and the clock. One per process is enough.
#[derive(Clone)]
pub struct PolicyEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// Made when first asked for, and few: see the module's header.
    flavours: Mutex<HashMap<Flavour, Flavoured>>,
    ticker: Ticker,
    max_component: ByteSize,
    code_cache: Option<CodeCache>,
}

#[derive(Clone)]
struct Flavoured {
    engine: Engine,
    linker: Arc<Linker<GuestState>>,
}

/// The settings that are compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flavour {
    counts_fuel: bool,
    stack: ByteSize,
}

impl Flavour {
    fn of(limits: &Limits) -> Self {
        Self { counts_fuel: limits.fuel.is_some(), stack: limits.stack }
    }
}

/// A component that is compiled for one flavour.
#[derive(Clone)]
struct CompiledPolicy {
    engine: Engine,
    policy: ImagePolicyPre<GuestState>,
    origin: CodeOrigin,
}

/// The settings of a [`PolicyEngine`] to be built.
#[derive(Debug, Clone)]
pub struct PolicyEngineBuilder {
    max_component: ByteSize,
    code_cache: Option<PathBuf>,
}

impl PolicyEngineBuilder {
    /// Refuses components that are larger than this. Default: 64 MiB.
    #[must_use]
    pub fn max_component(mut self, size: ByteSize) -> Self {
        self.max_component = size;
        self
    }

    /// Keeps compiled code in this directory, which is made with mode 0700 where it is missing. Default: nowhere.
    ///
    /// A directory that somebody else could write to is not used, and neither is an entry that is damaged or was not
    /// made by this host for this very component and these settings: policies are compiled then, as without a cache.
    /// A cache that cannot be written is read.
    #[must_use]
    pub fn code_cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.code_cache = Some(directory.into());
        self
    }

    /// Builds the engine.
    ///
    /// # Errors
    /// [`PolicyError::Host`] where this machine cannot run compiled WebAssembly.
    pub fn build(self) -> Result<PolicyEngine, PolicyError> {
        let shared = Shared {
            flavours: Mutex::default(),
            ticker: Ticker::default(),
            max_component: self.max_component,
            code_cache: self.code_cache.map(CodeCache::new),
        };
        let engine = PolicyEngine { shared: Arc::new(shared) };
        engine.flavoured(Flavour::of(&Limits::default()))?;
        Ok(engine)
    }
}

impl PolicyEngine {
    /// Builds an engine that compiles components of at most 64 MiB and keeps no compiled code on disk.
    ///
    /// # Errors
    /// [`PolicyError::Host`] where this machine cannot run compiled WebAssembly.
    pub fn new() -> Result<Self, PolicyError> {
        Self::builder().build()
    }

    /// Returns a builder for an engine with its own settings.
    pub fn builder() -> PolicyEngineBuilder {
        PolicyEngineBuilder { max_component: MAX_COMPONENT, code_cache: None }
    }

    /// Makes sure that the code cache has this component, compiled for these limits. Returns whether it had it already.
    /// Compiles on a thread of its own, as [`Policy::load`](crate::policy::Policy::load) does.
    ///
    /// # Errors
    /// [`PolicyError::NoCodeCache`], [`PolicyError::CodeCache`] where it cannot be used; otherwise as
    /// [`Policy::load`](crate::policy::Policy::load).
    pub async fn warm(
        &self,
        component: impl Into<Vec<u8>>,
        limits: &Limits,
    ) -> Result<CodeOrigin, PolicyError> {
        if self.shared.code_cache.is_none() {
            return Err(PolicyError::NoCodeCache);
        }
        let (engine, component, flavour) = (self.clone(), component.into(), Flavour::of(limits));
        on_own_thread(move |_| {
            engine.check(&component)?;
            let (compiled, stored) = engine.prepare_and_store(&component, flavour)?;
            stored.map(|()| compiled.origin)
        })
        .await
    }

    /// Makes the clock tick for a run.
    fn clock(&self) -> Result<Running, PolicyError> {
        let cannot = |error| PolicyError::Host(format!("it has no thread for the clock: {error}"));
        self.shared.ticker.run().map_err(cannot)
    }

    /// Refuses a component that is no policy, as far as that shows without compiling it.
    fn check(&self, bytes: &[u8]) -> Result<(), PolicyError> {
        let (size, cap) = (ByteSize::bytes(bytes.len() as u64), self.shared.max_component);
        if size > cap {
            return Err(PolicyError::TooLarge { size, cap });
        }
        load::check_header(bytes)?;
        load::check_names(bytes)
    }

    /// Compiles a component, or takes its code from the cache, and resolves its imports.
    fn prepare(&self, bytes: &[u8], flavour: Flavour) -> Result<CompiledPolicy, PolicyError> {
        let (compiled, stored) = self.prepare_and_store(bytes, flavour)?;
        if let Err(error) = stored {
            tracing::warn!("{error}");
        }
        Ok(compiled)
    }

    /// Does the same as [`prepare`](Self::prepare), and also returns whether compiled code could be stored.
    ///
    /// Code goes into the cache once the component has turned out to be a policy.
    fn prepare_and_store(
        &self,
        bytes: &[u8],
        flavour: Flavour,
    ) -> Result<(CompiledPolicy, Result<(), PolicyError>), PolicyError> {
        let Flavoured { engine, linker } = self.flavoured(flavour)?;
        let cache = self.shared.code_cache.as_ref().map(|cache| (cache, CodeKey::new(bytes, &engine)));
        let cached = cache.as_ref().and_then(|(cache, key)| cache.get(key, &engine));
        let (component, origin) = match cached {
            Some(component) => (component, CodeOrigin::Cached),
            None => {
                failpoint!("policy.compiling");
                let component = Component::new(&engine, bytes).map_err(|error| load::damaged(&error))?;
                (component, CodeOrigin::Compiled)
            }
        };
        load::check_functions(&engine, &component)?;
        let instance = linker.instantiate_pre(&component).map_err(|_| load::other_types())?;
        let policy = ImagePolicyPre::new(instance).map_err(|_| load::other_types())?;
        let stored = match cache {
            Some((cache, key)) if origin == CodeOrigin::Compiled => cache.put(&key, &component),
            _ => Ok(()),
        };
        Ok((CompiledPolicy { engine, policy, origin }, stored))
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

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine")
            .field("max_component", &self.shared.max_component)
            .field("code_cache", &self.shared.code_cache)
            .finish_non_exhaustive()
    }
}
