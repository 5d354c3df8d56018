//! `cargo xtask build`: builds the release of the program, with the built-in policies inside.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::guests::{self, Along, BUILTIN, EMBED};
use crate::shell::{cargo, target};
use crate::steps::{Announcement, Steps};

/// The maximum size of a release, in bytes.
const MAX_BYTES: u64 = 25_000_000;

/// Builds the policies, then the program with them.
pub(crate) fn run_build() -> Result<()> {
    let mut steps = Steps::begin("build");
    guests::build_kit(&mut steps, Along::Nothing)?;
    let policies = guests::build_builtin(&mut steps, &BUILTIN)?;
    let announcement = Announcement {
        name: "program",
        does: "compiles target/release/larder, optimised, with the policies inside",
        usually: "10 to 13 min",
    };
    steps.run(announcement, |step| {
        let mut build = cargo();
        build.args(["build", "--release", "--locked", "--package", "larder-cli"]).env(EMBED, policies);
        step.run(&mut build)?;
        let program = target().join("release/larder");
        let bytes =
            fs::metadata(&program).with_context(|| format!("could not read `{}`", program.display()))?.len();
        step.note(format!("{}: {:.1} MB", program.display(), bytes as f64 / 1e6));
        ensure!(bytes <= MAX_BYTES, "the program is larger than {} MB", MAX_BYTES / 1_000_000);
        Ok(())
    })?;
    steps.finish();
    Ok(())
}
