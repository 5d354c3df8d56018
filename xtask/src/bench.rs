//! `cargo xtask bench`: what `tests/benches/` measures.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{cargo, root, run, words};

/// One bench alone.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Only {
    /// One policy in each language.
    Languages,
}

/// Where the figures stand in the page.
const BEGIN: &str = "<!-- figures: cargo xtask bench languages -->\n";
const END: &str = "<!-- end of figures -->";

/// Runs every bench with a release build.
pub(crate) fn run_all() -> Result<()> {
    run(cargo().args(["bench", "--quiet", "--package", "larder-tests", "--benches"]))
}

/// Measures the same policy in each language, and writes the table into the page on languages.
pub(crate) fn run_languages() -> Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", "larder-tests", "--bench", "languages"]);
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
