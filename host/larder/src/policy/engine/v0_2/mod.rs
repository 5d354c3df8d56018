//! The translation of a [`Session`](crate::policy::session::Session) into `larder:image@0.2.0`, and back.
//!
//! A later version of the contract is one more module like this one: the session knows of none. The interfaces and the
//! world are generated from `wit/`. The records of `types` are written out (`types`), since most of what goes to a guest
//! is handles: their texts are made once, before the run, and are shared from then on instead of copied, and their bytes
//! are put together here (`lowering`).

mod convert;
mod handles;
mod host;
mod lowering;
#[expect(unreachable_pub, reason = "the generated code exports its items again, as its own")]
pub mod types;

wasmtime::component::bindgen!({
    path: "wit",
    world: "image-policy",
    // A limit ends a run inside of a call.
    imports: { default: trappable },
    with: { "larder:image/types": self::types },
});

pub(crate) use self::convert::datetime;
pub(crate) use self::exports::larder::image::policy;
pub(crate) use self::handles::Handles;
use self::larder::image::{images, report, usage};
