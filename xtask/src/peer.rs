//! `cargo xtask peer`: microsandbox's own SDK as the judge of our homes, and we of its.
//!
//! The program is a workspace of its own in `tests/peer`, since its SDK bundles SQLite as Larder does, and is built only
//! here: compiling the SDK takes minutes. What is built once serves the tests and the benches from then on.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cargo, linted, target};
use crate::steps::{Announcement, Steps};

/// Builds the program where it is not up to date, and runs the tests that need it.
pub(crate) fn run_peer() -> Result<()> {
    let mut steps = Steps::begin("peer");
    let announcement = Announcement {
        name: "peer",
        does: "compiles the program `larder-peer` with the SDK of microsandbox",
        usually: "10 min",
    };
    steps.run(announcement, |step| {
        let mut build = cargo();
        // Optimised as our benches are, so that they compare like with like.
        build.args(["build", "--release", "--locked", "--manifest-path", "tests/peer/Cargo.toml"]);
        step.run(build.arg("--target-dir").arg(directory()))
    })?;
    run_tests(&mut steps)?;
    steps.finish();
    Ok(())
}

/// Runs the tests that need the program.
pub(crate) fn run_tests(steps: &mut Steps) -> Result<()> {
    let announcement = Announcement {
        name: "peer's tests",
        does: "has microsandbox and Larder work on the same homes",
        usually: "1 min where the tests are built",
    };
    // Of the whole workspace, as the other tests are built: of the package alone, dependencies would be built once more.
    steps.run(announcement, |step| step.run(linted(&["test"]).args(["--workspace", "--test", "peer"])))
}

/// Returns the path of the program, once it is built.
pub(crate) fn program() -> PathBuf {
    directory().join("release/larder-peer")
}

fn directory() -> PathBuf {
    target().join("peer")
}
