//! Removes the least recently used images while the cache is above its budget.
//!
//! - `budget`: the operator's budget, and the bytes that a run has to free.
//! - `unit`: the images that are removed together, in the order of their removal.
//! - `sweep`: removes unit after unit, until enough is freed.

mod budget;
mod sweep;
mod unit;

use larder_guest::{Cache, Failure, Policy, Request};

pub use budget::Config;

/// The policy.
pub struct DiskBudget;

impl Policy for DiskBudget {
    const NAME: &'static str = "disk-budget";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Removes the least recently used images while the cache is above its budget.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    type Config = Config;

    fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        let need = config.need(cache.disk()?, request.goal_bytes)?;
        let images = cache.images()?;
        if need.bytes == 0 {
            for image in &images {
                cache.explain(&image.handle.reference, "the cache is within its budget");
            }
            return Ok(());
        }
        sweep::sweep(&unit::units(images), need, request.now, cache)
    }
}

larder_guest::export_policy!(DiskBudget);
