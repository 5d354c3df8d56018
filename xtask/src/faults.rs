//! `cargo xtask faults`: tests every fault at the system's edge, and runs many processes on one home for a minute each.

use std::fs;

use anyhow::{Context as _, Result};

use crate::guests::{self, BUILTIN, EMBED};
use crate::shell::{command, install_packages, linted, succeeds, target};
use crate::steps::{Announcement, Steps};

/// The variable that makes the tests run every fault. Without it they run a sample.
const SWITCH: &str = "LARDER_FAULTS";
/// The variable that names the file of the table.
const TABLE: &str = "LARDER_FAULTS_TABLE";

/// Runs all faults, prints their table, and runs several processes on one home. Stops at the first step that fails.
pub(crate) fn run_faults() -> Result<()> {
    let mut steps = Steps::begin("faults");
    let policies = guests::build_builtin(&mut steps, &BUILTIN)?;
    let announcement = Announcement {
        name: "faults",
        does: "fails and kills at every call of the program on a home, and checks what is left",
        usually: "40 min",
    };
    let table = steps.run(announcement, |step| {
        if !succeeds(command("strace").arg("--version")) {
            install_packages(step, &["strace"])?;
        }
        let table = target().join("xtask/faults/table");
        let mut test = linted(&["test"]);
        test.args(["--workspace", "--test", "faults", "--", "--nocapture"]);
        step.run(test.env(EMBED, &policies).env(SWITCH, "all").env(TABLE, &table))?;
        fs::read_to_string(&table).with_context(|| format!("could not read `{}`", table.display()))
    })?;
    eprint!("{table}");
    let announcement = Announcement {
        name: "processes",
        does: "runs two and eight programs on one home, for a minute each",
        usually: "3 min",
    };
    steps.run(announcement, |step| {
        let mut test = linted(&["test"]);
        test.args(["--workspace", "--test", "processes", "--", "--nocapture"]);
        step.run(test.env(EMBED, &policies).env(SWITCH, "all"))
    })?;
    steps.finish();
    Ok(())
}
