//! `cargo xtask bench`: what `tests/benches/` measures.

use anyhow::Result;

use crate::shell::{cargo, run};

/// Runs these benches with a release build, or all of them where none is named.
pub(crate) fn run_benches(names: &[String]) -> Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", "larder-tests"]);
    if names.is_empty() {
        bench.arg("--benches");
    }
    for name in names {
        bench.args(["--bench", name]);
    }
    run(&mut bench)
}
