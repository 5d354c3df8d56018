//! `cargo xtask peer`: microsandbox's own SDK as the judge of our homes, and we of its.
//!
//! The program is a workspace of its own in `tests/peer`, since its SDK bundles SQLite as Larder does, and is built only
//! here: compiling the SDK takes minutes. What is built once serves the tests and the benches from then on.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cargo, run, target};

/// Builds the program where it is not up to date, and runs the tests that need it.
pub(crate) fn run_peer() -> Result<()> {
    build()?;
    eprintln!("built `{}`", program().display());
    // Of the whole workspace, as `cargo test` builds it: of the package alone, dependencies would be built once more.
    run(cargo().args(["test", "--workspace", "--test", "peer"]))
}

/// Where the program is once it was built.
pub(crate) fn program() -> PathBuf {
    directory().join("release/larder-peer")
}

fn directory() -> PathBuf {
    target().join("peer")
}

fn build() -> Result<()> {
    eprintln!("building `larder-peer` with the SDK of microsandbox: the first time, that takes minutes");
    let mut build = cargo();
    // Optimised as our benches are, so that they compare like with like.
    build.args(["build", "--quiet", "--release", "--locked", "--manifest-path", "tests/peer/Cargo.toml"]);
    run(build.arg("--target-dir").arg(directory()))
}
