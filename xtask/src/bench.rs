//! `cargo xtask bench`: runs the measurements in `tests/benches/`.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{cargo, root, words};
use crate::steps::{Announcement, Steps};

/// The line before the figures in the page.
const BEGIN: &str = "<!-- figures: cargo xtask bench languages -->\n";
const END: &str = "<!-- end of figures -->";

/// Runs these benches with a release build, or all of them if none is named. The bench of languages, if it is named
/// alone, writes its table into the page on languages.
pub(crate) fn run_benches(names: &[String]) -> Result<()> {
    if names == ["languages"] {
        return run_languages();
    }
    let mut steps = Steps::begin("bench");
    let mut bench = cargo();
    bench.args(["bench", "--package", "larder-tests"]);
    if names.is_empty() {
        bench.arg("--benches");
    }
    for name in names {
        bench.args(["--bench", name]);
    }
    let announcement = Announcement {
        name: "benches",
        does: "compiles everything optimised, and measures",
        usually: "10 min to compile, 5 to 30 min to measure",
    };
    // What is measured is printed as it comes, on a terminal or not.
    steps.run(announcement, |_| {
        let status = bench.status().with_context(|| format!("could not run `{}`", words(&bench)))?;
        ensure!(status.success(), "`{}` failed: {status}", words(&bench));
        Ok(())
    })?;
    steps.finish();
    Ok(())
}

/// Measures the same policy in each language, and writes the table into the page on languages.
fn run_languages() -> Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--package", "larder-tests", "--bench", "languages"]);
    let output = bench.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("could not run `{}`", words(&bench)))?;
    ensure!(output.status.success(), "`{}` failed: {}", words(&bench), output.status);
    let table = String::from_utf8(output.stdout).context("the bench wrote something else than text")?;
    print!("{table}");
    let path = root().join("docs/languages.md");
    let page = fs::read_to_string(&path).with_context(|| format!("could not read `{}`", path.display()))?;
    let places = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        places.with_context(|| format!("`{}` has no place for the figures: `{BEGIN}`", path.display()))?;
    fs::write(&path, format!("{before}{BEGIN}\n{}\n\n{END}{after}", table.trim()))
        .with_context(|| format!("could not write `{}`", path.display()))
}
