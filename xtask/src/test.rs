//! `cargo xtask test`: everything that CI runs.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::shell::{cargo, command, install_packages, run, succeeds, target};
use crate::{demo, fuzz, guests, peer};

const CARGO_DENY: &str = "0.20.2";

/// Runs every step, and stops at the first that fails.
pub(crate) fn run_all() -> Result<()> {
    step("toolchain", toolchain)?;
    step("format", || {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        run(cargo().args(["fmt", "--check", "--manifest-path", "tests/fuzz/Cargo.toml"]))?;
        run(cargo().args(["fmt", "--check", "--manifest-path", "tests/peer/Cargo.toml"]))
    })?;
    step("guests", || guests::run(&[]).map(drop))?;
    step("lints", || {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    step("lints without policies", || {
        run(cargo().args([
            "clippy",
            "-p",
            "larder",
            "--no-default-features",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("lints of the component bindings", || {
        let mut clippy = cargo();
        clippy.args([
            "clippy",
            "-p",
            "larder-guest",
            "--target",
            "wasm32-unknown-unknown",
            "--profile",
            "policy",
        ]);
        run(clippy.arg("--target-dir").arg(target().join("wasm")).args(["--quiet", "--", "-D", "warnings"]))
    })?;
    step("lints of the fuzz targets", fuzz::run_lints)?;
    step("documentation", || {
        // The program's page would take the place of the library's, which has its name.
        let mut doc = cargo();
        doc.args(["doc", "--workspace", "--exclude", "larder-cli", "--no-deps", "--quiet"]);
        run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("dependencies", || {
        run(&mut cargo_deny("Cargo.toml")?)?;
        run(&mut cargo_deny("tests/fuzz/Cargo.toml")?)
    })?;
    step("judges", install_judges)?;
    step("tests", || run(cargo().args(["test", "--workspace", "--quiet"])))?;
    step("fuzz targets", || fuzz::run_targets(&[], fuzz::A_MINUTE, fuzz::Start::Same))?;
    step("demo", demo::run_demo)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("==> {name}");
    let clock = Instant::now();
    work().with_context(|| format!("step `{name}`"))?;
    eprintln!("==> {name}: {} s", clock.elapsed().as_secs());
    Ok(())
}

/// The parts of the toolchain that a minimal installation lacks.
fn toolchain() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(cargo().args([subcommand, "--version"])) {
            run(command("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// The programs that judge what is taken in and written, with the Debian packages that have them. Without them the
/// tests that need them say `skipped: ` and pass.
fn install_judges() -> Result<()> {
    const JUDGES: [(&str, &str); 4] = [
        ("skopeo", "skopeo"),
        ("umoci", "umoci"),
        ("fsck.erofs", "erofs-utils"),
        ("docker-registry", "docker-registry"),
    ];
    let missing =
        || JUDGES.into_iter().filter(|(program, _)| !succeeds(Command::new(program).arg("--version")));
    let packages: Vec<&str> = missing().map(|(_, package)| package).collect();
    if !packages.is_empty()
        && let Err(error) = install_packages(&packages)
    {
        eprintln!("{error:#}");
    }
    for (program, package) in missing() {
        eprintln!("skipped: tests that need `{program}` (Debian: {package})");
    }
    if !peer::program().exists() {
        eprintln!("skipped: tests that need microsandbox's SDK (`cargo xtask peer`)");
    }
    Ok(())
}

/// `cargo deny` over what needs no network: bans, licences and sources of a workspace.
fn cargo_deny(manifest: &str) -> Result<Command> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !succeeds(command(&program).arg("--version")) {
        let version = format!("cargo-deny@{CARGO_DENY}");
        let mut install = cargo();
        install
            .args(["install", "--quiet", "--locked", "--no-default-features", &version, "--root"])
            .arg(&tools);
        // It runs for a second and is compiled for minutes: the quicker compilation wins.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
        install.arg("--target-dir").arg(tools.join("build"));
        run(&mut install)?;
    }
    let mut deny = command(program);
    deny.args(["--log-level", "error", "--manifest-path", manifest, "check", "bans", "licenses", "sources"]);
    Ok(deny)
}
