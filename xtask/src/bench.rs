//! `cargo xtask bench`: what `tests/benches/` measures.

use anyhow::Result;

use crate::shell::{cargo, run};

/// Runs every bench with a release build.
pub(crate) fn run_all() -> Result<()> {
    run(cargo().args(["bench", "--quiet", "--package", "larder-tests", "--benches"]))
}
