//! The clock that ends guests: it advances the epoch of every engine while a guest runs, and sleeps otherwise.
//!
//! One thread for a [`PolicyEngine`](crate::policy::PolicyEngine), started with the first run and ended with the engine. It
//! parks when a whole tick has passed without a run, so that runs that follow each other closely don't wake it each
//! time. A guest looks once in a tick at its deadline, and at whether its run was cancelled, so a run ends at most a tick late.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// The time between two looks at a running guest's deadline.
pub(super) const TICK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct State {
    engines: Vec<Engine>,
    running: usize,
    /// True if a run began since the last tick.
    began: bool,
    started: bool,
    parked: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every unlock: nothing that can panic runs in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock. Dropping it ends its thread.
#[derive(Default)]
pub(super) struct Ticker(Arc<Shared>);

/// A guest is running for as long as this lives.
pub(super) struct Running(Arc<Shared>);

impl Ticker {
    /// Advances this engine too from now on.
    pub(super) fn add(&self, engine: Engine) {
        self.0.lock().engines.push(engine);
    }

    /// Makes the clock tick until the guard is dropped.
    ///
    /// # Errors
    /// Fails if the system provides no thread.
    pub(super) fn run(&self) -> std::io::Result<Running> {
        let mut state = self.0.lock();
        if !state.started {
            let shared = Arc::clone(&self.0);
            std::thread::Builder::new()
                .name("larder-policy-clock".to_owned())
                .spawn(move || tick(&shared))?;
            state.started = true;
        }
        state.running += 1;
        state.began = true;
        if state.parked {
            self.0.wake.notify_one();
        }
        Ok(Running(Arc::clone(&self.0)))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

fn tick(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closed {
        if state.running == 0 && !state.began {
            state.parked = true;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.parked = false;
            continue;
        }
        state.began = false;
        let (after, _) = shared.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
        state = after;
        state.engines.iter().for_each(Engine::increment_epoch);
    }
}
