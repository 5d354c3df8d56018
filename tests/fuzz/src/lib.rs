//! Fuzz targets of what takes bytes from strangers, run by `cargo xtask fuzz`.
//!
//! ```text
//! checks     what holds of all bytes: one file a target, which begins with its invariant
//! mutate     how bytes are changed, so that checksums are no wall
//! memory     the bound on memory that all targets have
//! ../targets the programs, nothing but these together
//! ../dictionaries  words that are worth trying
//! ../regressions   what was found, by target: `tests/tests/fuzzed.rs` checks that it stays fixed
//! ```
//!
//! Seeds are made by `larder-seeds`, of real things.

pub mod checks;
mod memory;
pub mod mutate;
