//! `cargo xtask peer`: tests Larder on homes of microsandbox's own SDK, and the SDK on homes of Larder.
//!
//! The program is a workspace of its own in `tests/peer`, since its SDK bundles SQLite as Larder does. Only
//! this task builds it, because compiling the SDK takes minutes. Later tests and benches use the same build.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cargo, linted, target};
use crate::steps::{Announcement, Steps};

/// Builds the program if it is out of date, and runs the tests that need it.
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

/// Returns the path of the built program.
pub(crate) fn program() -> PathBuf {
    directory().join("release/larder-peer")
}

fn directory() -> PathBuf {
    target().join("peer")
}
