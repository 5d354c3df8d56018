//! The threads that compile and run policies, and what stops them.
//!
//! Each piece of work has a thread of its own, with a stack of a fixed size: a guest may use up to [`STACK_MAX`] of it,
//! whatever the threads of the embedder have. The future that waits for the work owns it: dropping the future cancels
//! the work. A guest looks for that at each tick of the clock (`ticker.rs`), the host between two steps. A compilation
//! that has begun is finished, since the compiler cannot be interrupted.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::thread;

use tokio::sync::oneshot;

use crate::failpoint::failpoint;
use crate::policy::error::PolicyError;
use crate::policy::limits::STACK_MAX;

/// The stack of a thread, in bytes. The system provides its pages as they are used.
const STACK: usize = 4 << 20;

/// The part of the stack that is left for the host's functions under the deepest guest.
const HOST_STACK: usize = 2 << 20;

const _: () = assert!(STACK_MAX.as_bytes() as usize + HOST_STACK <= STACK);

/// The state of the future that waits for some work.
#[derive(Debug, Clone)]
pub(crate) struct Cancellation(Weak<()>);

impl Cancellation {
    /// Returns whether the future was dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// Ends work that was cancelled.
    ///
    /// # Errors
    /// [`PolicyError::Host`], which nothing receives any more.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        if self.is_cancelled() { Err(PolicyError::Host("the work was cancelled".to_owned())) } else { Ok(()) }
    }
}

/// Runs work on a thread of its own, and returns its result. Needs no runtime of any kind. A panic of the work is passed
/// on.
///
/// # Errors
/// Those of the work, and [`PolicyError::Host`] if the system provides no thread.
pub(crate) async fn on_own_thread<T, E>(
    work: impl FnOnce(&Cancellation) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<PolicyError> + Send + 'static,
{
    let waiting = Arc::new(());
    let cancellation = Cancellation(Arc::downgrade(&waiting));
    let (answer, answered) = oneshot::channel();
    let work = move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&cancellation)));
        failpoint!("policy.ended");
        // A result that nothing waits for is dropped here, where that may block.
        drop(answer.send(result));
    };
    let thread = thread::Builder::new().name("larder-policy".to_owned()).stack_size(STACK);
    thread.spawn(work).map_err(|error| PolicyError::Host(format!("it has no thread for them: {error}")))?;
    let result = answered.await;
    drop(waiting);
    match result {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(PolicyError::Host("its thread ended without an answer".to_owned()).into()),
    }
}
