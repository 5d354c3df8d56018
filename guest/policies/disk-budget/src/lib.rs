//! Removes the least recently used images while the cache is above its budget.
//!
//! - `budget`: the operator's budget, and by how much the cache is above it.
//! - `unit`: what goes or stays together, in the order in which it goes.
//! - `sweep`: one after the other, until the budget is met.

mod budget;
mod sweep;
mod unit;

use larder_guest::{Cache, Failure, Policy, Timestamp};

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

    fn evaluate(config: Config, now: Timestamp, cache: &mut impl Cache) -> Result<(), Failure> {
        config.check()?;
        let excess = config.excess(cache.disk()?);
        let images = cache.images()?;
        if excess == 0 {
            for image in &images {
                cache.explain(&image.handle.reference, "the cache is within its budget");
            }
            return Ok(());
        }
        sweep::sweep(&unit::units(images), excess, now, cache)
    }
}

larder_guest::export_policy!(DiskBudget);
