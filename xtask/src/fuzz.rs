//! `cargo xtask fuzz`: tests all parsers of untrusted bytes with invalid input.
//!
//! The targets of `tests/fuzz/` are built with the instrumentation that libFuzzer needs. Stable Rust supports it,
//! because it is a pass of LLVM. Stable Rust does not support sanitizers, which add little to Rust: overflows and
//! bounds are panics, and memory has a bound.
//!
//! All files are in `target/fuzz/`: seeds, the corpus that grows from run to run, a log for each target, and findings
//! in `artifacts/TARGET/`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{cargo, command, install_packages, root, succeeds, target, words};
use crate::steps::{Announcement, Step, Steps};

/// The targets, with the maximum length of an input in bytes.
pub(crate) const TARGETS: [(&str, u32); 7] = [
    ("archive", 32 << 10),
    ("challenge", 1 << 10),
    ("choice", 8 << 10),
    ("credentials", 4 << 10),
    ("erofs", 48 << 10),
    ("manifest", 8 << 10),
    ("tar", 24 << 10),
];

/// The duration of each target in `cargo xtask ci`.
pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);

/// The time after which an input counts as a finding. Most inputs take a thousandth of a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The memory above which a process counts as a finding, in MiB.
const MEMORY_MIB: u32 = 512;

/// The flags that count the executed edges of code, and report comparisons to libFuzzer. Each crate has one unit of
/// code, because otherwise the tables of counters and of places would not match.
const INSTRUMENTATION: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// The starting point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The same for each run: the same change is always judged the same way.
    Same,
    /// A random one: longer runs find more.
    Random,
}

/// Builds these targets, or all of them if none is named, and runs each for this long.
pub(crate) fn run_fuzz(names: &[String], time: Duration, start: Start) -> Result<()> {
    let mut steps = Steps::begin("fuzz");
    run_targets(&mut steps, names, time, start)?;
    steps.finish();
    Ok(())
}

/// Builds these targets, or all of them if none is named, and runs each for this long. Runs as many at once as there
/// are processors. Without a C++ compiler, the step reports that it skips them.
pub(crate) fn run_targets(steps: &mut Steps, names: &[String], time: Duration, start: Start) -> Result<()> {
    let announcement = Announcement {
        name: "fuzz targets",
        does: "builds the fuzz targets with instrumentation, and runs each for its time",
        usually: "3 min and twice the time of a target",
    };
    steps.run(announcement, |step| {
        if !has_compiler(step) {
            step.skip("fuzz targets, which need a C++ compiler (Debian: g++)".to_owned());
            return Ok(());
        }
        let programs = build(step)?;
        make_seeds(step)?;
        let chosen =
            TARGETS.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name));
        let left: Mutex<Vec<_>> = Mutex::new(chosen.rev().collect());
        let results: Mutex<Vec<Result<String>>> = Mutex::default();
        let next = || left.lock().ok()?.pop();
        let work = || {
            while let Some((name, max_length)) = next() {
                let result = run_target(&programs, name, max_length, time, start);
                let result = result.map(|summary| format!("{name}: {summary}"));
                if let Ok(mut all) = results.lock() {
                    all.push(result);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(TARGETS.len()) {
                scope.spawn(work);
            }
        });
        let mut failures = Vec::new();
        for result in results.into_inner().unwrap_or_default() {
            match result {
                Ok(summary) => step.note(summary),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

/// Returns whether libFuzzer can be compiled. Installs the compiler if possible.
fn has_compiler(step: &mut Step<'_>) -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let is_there = || succeeds(Command::new(&compiler).arg("--version"));
    if !is_there()
        && let Err(error) = install_packages(step, &["g++"])
    {
        step.note(format!("{error:#}"));
    }
    is_there()
}

/// Lints the targets with their build flags, so that their dependencies are prepared once.
pub(crate) fn run_lints(step: &mut Step<'_>) -> Result<()> {
    if !has_compiler(step) {
        step.skip("lints of the fuzz targets, which need a C++ compiler (Debian: g++)".to_owned());
        return Ok(());
    }
    step.run(instrumented("clippy").args(["--all-targets", "--", "-D", "warnings"]))
}

/// Builds all targets, and returns their directory.
fn build(step: &mut Step<'_>) -> Result<PathBuf> {
    step.run(&mut instrumented("build"))?;
    let host = host_triple()?;
    Ok(build_directory().join(host).join("release"))
}

fn build_directory() -> PathBuf {
    target().join("fuzz/build")
}

fn instrumented(subcommand: &str) -> Command {
    let mut cargo = cargo();
    cargo.args([subcommand, "--release", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"]);
    // With a target named, build scripts and macros are compiled without instrumentation.
    cargo.args(["--target", "host-tuple", "--target-dir"]).arg(build_directory());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\x1f"));
    cargo
}

/// Returns rustc's name of this machine's platform.
fn host_triple() -> Result<String> {
    let mut rustc = command("rustc");
    let output = rustc.args(["--print", "host-tuple"]).output();
    let output = output.with_context(|| format!("could not run `{}`", words(&rustc)))?;
    ensure!(output.status.success(), "`{}` failed: {}", words(&rustc), output.status);
    Ok(String::from_utf8(output.stdout).context("rustc names its host")?.trim().to_owned())
}

fn make_seeds(step: &mut Step<'_>) -> Result<()> {
    step.run(cargo().args(["build", "--workspace", "--bins"]))?;
    step.run(command(target().join("debug/larder-seeds")).arg(target().join("fuzz/seeds")))
}

/// Runs a target, and prints a summary.
fn run_target(
    programs: &std::path::Path,
    name: &str,
    max_length: u32,
    time: Duration,
    start: Start,
) -> Result<String> {
    let place = target().join("fuzz");
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|part| place.join(part).join(name));
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("could not make `{}`", directory.display()))?;
    }
    let path = place.join(name).with_extension("log");
    let log = File::create(&path).with_context(|| format!("could not make `{}`", path.display()))?;
    let mut fuzz = command(programs.join(name));
    fuzz.arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-timeout={}", TIMEOUT.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={max_length}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1");
    if start == Start::Same {
        fuzz.arg("-seed=1");
    }
    let dictionary = root().join("tests/fuzz/dictionaries").join(name).with_extension("dict");
    if dictionary.exists() {
        fuzz.arg(format!("-dict={}", dictionary.display()));
    }
    // What is new goes to the first of these; the others are read.
    fuzz.arg(corpus).arg(place.join("seeds").join(name));
    let regressions = root().join("tests/fuzz/regressions").join(name);
    fuzz.args(regressions.exists().then_some(regressions));
    let status = fuzz.stdout(log.try_clone()?).stderr(log).status();
    let status = status.with_context(|| format!("could not run `{}`", words(&fuzz)))?;
    let log = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    if !status.success() {
        let end: Vec<&str> = log.lines().rev().take(40).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        bail!(
            "{}\nthe target `{name}` failed ({status}): `{}` has all of this. The input named above is run alone by\n  \
             `{} INPUT`\nand is kept in `tests/fuzz/regressions/{name}/`, once it is fixed.",
            end.join("\n"),
            path.display(),
            programs.join(name).display()
        );
    }
    Ok(summary(&log))
}

/// Returns a summary of the log of a run that found nothing.
fn summary(log: &str) -> String {
    let behind = |key: &str| {
        let (_, rest) = log.rsplit_once(key)?;
        rest.split_whitespace().next()
    };
    let number = |key| behind(key).unwrap_or("?");
    format!(
        "{} executions, {} edges of code reached, {} inputs new, {} MiB",
        number("number_of_executed_units:"),
        number(" cov: "),
        number("new_units_added:"),
        number("peak_rss_mb:")
    )
}
