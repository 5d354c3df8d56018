//! Policies: small programs that decide what of a cache goes, and that can do nothing but propose.
//!
//! A [`Policy`] is a WebAssembly component of the world `larder:image/image-policy` (`wit/`). It sees one unchanging
//! state of the cache, as far as its grant reaches, and stages removals; what it staged becomes a [`Plan`], which a
//! person can read and which is checked again, entry by entry, when it is applied.
//!
//! - [`PolicyEngine`]: the common part of all policies, compiled code on disk too; [`Policy`]: one component, loaded;
//!   [`PolicyRun`] and [`Evaluation`]: the parameters of a run and its result
//! - [`GrantDocument`]: what a policy may do ([`Grant`]), what none may do ([`Guard`]), what a run may use up
//!   ([`Limits`])
//! - [`Plan`]: the decision on every image, with reasons, bytes, and what was denied
//! - [`PolicyError`]: why there is no policy, or no plan
//!
//! Compiling and running are asynchronous, and need no runtime of any kind: each has a thread of its own, whose stack is
//! large enough whatever the embedder's threads have. Any number of policies run at once, and none waits for another
//! one to be compiled. Dropping the future of a run stops the guest.
//!
//! # Rooms
//!
//! `limits` and `grant`: what a run may use up, and what it may do. `session`: one run's view of a cache, and what it
//! stages; no WebAssembly. `engine`: all that has to do with wasmtime and the contract, and the run itself. `suggest`: the
//! smallest grant that a policy needs, found by running it. Each uses only those before it.
//!
//! # What holds
//!
//! - **A policy only proposes.** Nothing outside this process changes while it runs; no lock and no transaction is
//!   held for it. After an error, a trap, a limit or a cap that was passed there is no plan at all.
//! - **A run without a grant is for looking.** A [preview](PolicyRun::preview) shows what a policy would remove if it
//!   might. Its plan has no grant, and is refused when it is to be applied.
//! - **One place decides.** `session/access.rs` decides what a policy may do, and the place that decides for a prune as well
//!   ([`crate::plan`]) what a guard keeps, again when a plan is applied. What a grant hides does not exist: no call tells
//!   a hidden image from an absent one, and what is shared with one counts as shared with nobody. Three figures are
//!   about the whole cache and so may hint at hidden images, because they would be wrong otherwise: the disk's, the
//!   bytes that a removal frees, and how many references `max-share` and `keep` count.
//! - **Everything is bounded.** Time, memory, stack, calls, texts, lists, log and reasons have a limit each, and each
//!   that is passed is named by its key in `[limits]` (`limits.rs`). A run ends within 5 ms of its deadline or of its
//!   cancellation, or when the call to the host that it is in returns; what the cache takes to read is not the policy's
//!   time. Compiling is bounded by the size of the component alone.
//! - **A run decides on the present.** It opens the state of the cache once it is compiled and has its thread.
//! - **The same input gives the same plan**, byte for byte, on every machine.
//! - **The session knows no contract.** `session/` has records and errors of its own, and `engine/v0_2/` translates them: a
//!   later version of the contract is one more translation.
//! - **No text of a policy is trusted**: control characters are gone before a reason, a log line or an error leaves
//!   this module.

mod error;
pub(crate) mod grant;
mod limits;

#[cfg(feature = "policy")]
mod engine;
#[cfg(feature = "policy")]
mod session;
#[cfg(feature = "policy")]
mod suggest;

pub use error::{Overrun, PolicyError};
pub use grant::{Grant, GrantDocument, Guard, Limits};

pub use crate::plan::{
    Decision, DecisionRecord, Denial, Explanation, ImageVerdict, LogLevel, LogLine, PLAN_VERSION, Plan,
    PlanEntry, PlanPolicy, PlanReport, Right, RunRecord, RunState, UseRecord, Verdict,
};
pub use crate::units::{ByteSize, Share, UnitError, format_duration, parse_duration};

#[cfg(feature = "policy")]
pub use {
    engine::component::{CodeOrigin, Description, Policy},
    engine::run::{Evaluation, RunStats},
    engine::surface::ComponentReport,
    engine::{PolicyEngine, PolicyEngineBuilder},
    session::parameters::PolicyRun,
    suggest::GrantSuggestion,
};

#[cfg(feature = "policy")]
pub(crate) use engine::local::Proposals;

/// The version of `larder:image` that this host speaks: patch versions don't matter.
pub const WIT_VERSION: &str = "0.2";
