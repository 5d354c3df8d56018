//! The contract of `wit/` as Rust types and traits.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "image-policy",
    // A limit ends a run inside of a call.
    imports: { default: trappable },
});

pub(super) use self::exports::larder::image::policy;
pub(super) use self::larder::image::{images, report, types, usage};
