//! `cargo xtask test`, which a person runs, and `cargo xtask ci`, which runs the same and more.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::fuzz::{self, Start};
use crate::guests::{self, Along, BUILTIN, EMBED, Languages};
use crate::shell::{cargo, command, install_packages, linted, succeeds, target};
use crate::steps::{Announcement, Step, Steps};
use crate::{demo, peer};

const CARGO_DENY: &str = "0.20.2";

/// The crates that others use.
const PACKAGES: [&str; 4] = ["larder-erofs", "larder", "larder-guest", "larder-kit"];

/// The variable that names the directory of the policies that were built for tests.
const POLICIES: &str = "LARDER_POLICIES";

/// The variable that makes tests that take minutes for each language run for all languages. Without it they
/// run for Rust.
const LANGUAGES: &str = "LARDER_LANGUAGES";

/// Checks format and lints, and runs all tests of the workspace. Stops at the first step that fails.
pub(crate) fn run_test() -> Result<()> {
    let mut steps = Steps::begin("test");
    test(&mut steps, Languages::Available)?;
    steps.finish();
    Ok(())
}

/// Runs `cargo xtask test` with every language, and all other checks of a change.
pub(crate) fn run_ci() -> Result<()> {
    let mut steps = Steps::begin("ci");
    let policies = test(&mut steps, Languages::All)?;
    rest(&mut steps, &policies)?;
    steps.finish();
    Ok(())
}

/// Runs the tests. Returns the directory of the built-in policies.
fn test(steps: &mut Steps, languages: Languages) -> Result<PathBuf> {
    let announcement =
        Announcement { name: "format", does: "checks that all code is formatted", usually: "2 s" };
    steps.run(announcement, |step| {
        install_toolchain(step)?;
        for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml", "tests/peer/Cargo.toml"] {
            step.run(cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
        }
        Ok(())
    })?;
    // What the demo builds, so that after the demo it is there.
    guests::build_kit(steps, Along::Program)?;
    let policies = guests::build_builtin(steps, &BUILTIN)?;
    guests::build_other_languages(steps, languages)?;
    let announcement = Announcement {
        name: "lints",
        does: "compiles the workspace with its tests and benches, clippy looking on",
        usually: "6 min",
    };
    steps.run(announcement, |step| {
        let mut build = linted(&["build"]);
        build.args(["--locked", "--workspace", "--all-targets"]);
        step.run(build.env(EMBED, &policies))
    })?;
    let announcement = Announcement {
        name: "judges",
        does: "installs the programs that judge what is written: skopeo, umoci, podman, buildah, erofs-utils, \
               docker-registry, strace, systemd, prometheus, chromium",
        usually: "1 min",
    };
    steps.run(announcement, install_judges)?;
    let announcement =
        Announcement { name: "tests", does: "runs all tests of the workspace", usually: "6 min" };
    steps.run(announcement, |step| {
        let environment = |mut cargo: Command| {
            cargo.env(EMBED, &policies).env(POLICIES, target().join("policies"));
            if languages == Languages::All {
                cargo.env(LANGUAGES, "all");
            }
            cargo
        };
        if languages == Languages::Available {
            step.skip(
                "what takes a minute for a language, such as new policies in other languages than Rust (`cargo xtask ci`)".to_owned(),
            );
        }
        if succeeds(cargo().args(["nextest", "--version"])) {
            step.run(environment(linted(&["nextest", "run"])).args(["--workspace", "--no-fail-fast"]))?;
            // nextest runs no examples of the documentation.
            step.run(environment(linted(&["test"])).args(["--workspace", "--doc"]))?;
        } else {
            step.run(environment(linted(&["test"])).args(["--workspace", "--no-fail-fast"]))?;
        }
        summarize(step)
    })?;
    Ok(policies)
}

/// Notes the number of passed tests, if their output was written to a log.
fn summarize(step: &mut Step<'_>) -> Result<()> {
    let Some(log) = step.written()? else { return Ok(()) };
    let mut sums = [0_u64; 3];
    for line in log.lines().filter(|line| line.contains("Summary [") || line.starts_with("test result: ")) {
        for (sum, word) in sums.iter_mut().zip(["passed", "failed", "ignored"]) {
            let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
            let count = words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok());
            *sum += count.unwrap_or(0);
        }
    }
    let [passed, failed, skipped] = sums;
    step.note(format!("{passed} passed, {failed} failed, {skipped} skipped"));
    Ok(())
}

fn rest(steps: &mut Steps, policies: &Path) -> Result<()> {
    let announcement = Announcement {
        name: "other lints",
        does: "runs clippy over the library and the program without their features, the bindings, and the fuzz targets",
        usually: "3 min",
    };
    steps.run(announcement, |step| {
        step.run(linted(&["build"]).args(["--package", "larder", "--no-default-features"]))?;
        step.run(linted(&["build"]).args(Along::Program.arguments()))?;
        let mut clippy = cargo();
        clippy.args(["clippy", "--package", "larder-guest", "--target", "wasm32-unknown-unknown"]);
        clippy.args(["--profile", "policy", "--target-dir"]).arg(target().join("wasm"));
        step.run(clippy.args(["--", "-D", "warnings"]))?;
        fuzz::run_lints(step)
    })?;
    let announcement = Announcement {
        name: "documentation",
        does: "builds the documentation, and fails on a warning",
        usually: "1 min",
    };
    steps.run(announcement, |step| {
        // The program's page would take the place of the library's, which has its name.
        let mut doc = cargo();
        doc.args(["doc", "--workspace", "--exclude", "larder-cli", "--no-deps"]);
        step.run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    let announcement = Announcement {
        name: "dependencies",
        does: "compiles cargo-deny in target/tools, and checks licences, bans and sources",
        usually: "3 min",
    };
    steps.run(announcement, |step| {
        ["Cargo.toml", "tests/fuzz/Cargo.toml"].iter().try_for_each(|manifest| run_cargo_deny(step, manifest))
    })?;
    let announcement = Announcement {
        name: "packages",
        does: "makes the packages of the libraries, of the SDK and of the author kit, as they would be published",
        usually: "2 s",
    };
    steps.run(announcement, |step| {
        let mut package = cargo();
        // Not verified, since that would compile wasmtime once more. And without lock files, for which a registry would have
        // to have what the packages depend on of each other.
        package.args(["package", "--no-verify", "--exclude-lockfile", "--allow-dirty"]);
        PACKAGES.iter().for_each(|name| _ = package.args(["--package", name]));
        step.run(&mut package)
    })?;
    let announcement = Announcement {
        name: "installation",
        does: "installs the program by Cargo, not optimised, with the policies inside, and lists them",
        usually: "1 min",
    };
    steps.run(announcement, |step| {
        let installed = target().join("installed");
        let mut install = cargo();
        install
            .args(["install", "--locked", "--profile", "dev", "--path", "host/cli", "--root"])
            .arg(&installed);
        step.run(install.env(EMBED, policies))?;
        let list = command(installed.join("bin/larder")).args(["policy", "list"]).output()?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let missing = BUILTIN.into_iter().find(|name| !list.contains(name));
        ensure!(missing.is_none(), "`larder policy list` lacks `{}`:\n{list}", missing.unwrap_or_default());
        Ok(())
    })?;
    fuzz::run_targets(steps, &[], fuzz::A_MINUTE, Start::Same)?;
    if peer::program().exists() {
        peer::run_tests(steps)?;
    }
    demo::run_in(steps)
}

/// Installs the parts of the toolchain that a minimal installation lacks.
fn install_toolchain(step: &mut Step<'_>) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(cargo().args([subcommand, "--version"])) {
            step.run(command("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// Installs the programs that check inputs and outputs, from their Debian packages. Without them, the tests
/// that need them print `skipped: ` and pass.
fn install_judges(step: &mut Step<'_>) -> Result<()> {
    const JUDGES: [(&str, &str); 10] = [
        ("skopeo", "skopeo"),
        ("umoci", "umoci"),
        ("podman", "podman"),
        ("buildah", "buildah"),
        ("fsck.erofs", "erofs-utils"),
        ("docker-registry", "docker-registry"),
        ("strace", "strace"),
        ("systemd-analyze", "systemd"),
        ("promtool", "prometheus"),
        ("chromium", "chromium"),
    ];
    // Not by its version: `fsck.erofs` tells that with a status of 1.
    let is_there = |program: &str| succeeds(command("sh").args(["-c", "command -v \"$0\"", program]));
    let missing = || JUDGES.into_iter().filter(|(program, _)| !is_there(program));
    let packages: Vec<&str> = missing().map(|(_, package)| package).collect();
    if !packages.is_empty()
        && let Err(error) = install_packages(step, &packages)
    {
        step.note(format!("{error:#}"));
    }
    for (program, package) in missing() {
        step.skip(format!("tests that need `{program}` (Debian: {package})"));
    }
    if !peer::program().exists() {
        step.skip("tests that need microsandbox's SDK (`cargo xtask peer`)".to_owned());
    }
    Ok(())
}

/// Checks everything that needs no network: bans, licences and sources of a workspace.
fn run_cargo_deny(step: &mut Step<'_>, manifest: &str) -> Result<()> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !succeeds(command(&program).arg("--version")) {
        let version = format!("cargo-deny@{CARGO_DENY}");
        let mut install = cargo();
        install.args(["install", "--locked", "--no-default-features", &version, "--root"]).arg(&tools);
        // It runs for a second and is compiled for minutes: the quicker compilation wins.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
        install.arg("--target-dir").arg(tools.join("build"));
        step.run(&mut install)?;
    }
    let mut deny = command(program);
    deny.args(["--log-level", "error", "--manifest-path", manifest, "check", "bans", "licenses", "sources"]);
    step.run(&mut deny)
}
