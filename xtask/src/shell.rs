//! Commands and paths.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::steps::Step;

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Returns the directory of all build outputs.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |set| root().join(set))
}

/// Returns the Cargo that runs this task, or that of the toolchain file.
pub(crate) fn cargo() -> Command {
    command("cargo")
}

/// Returns a command of Cargo, such as `test`, with clippy instead of the compiler for the crates of this
/// workspace. It fails on a warning. Lints and builds share their output, so dependencies are compiled once
/// for both. Tests do not inherit this setting: they run an ordinary Cargo.
pub(crate) fn linted(command: &[&str]) -> Command {
    let mut cargo = cargo();
    // Behind the command: Cargo hands nothing that stands before it to commands that are programs of their own.
    cargo.args(command).args(["--config", "build.rustc-workspace-wrapper='clippy-driver'"]);
    // As `cargo clippy` hands on what follows its `--`.
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    cargo
}

/// Returns a program that runs at the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Returns whether a program runs and succeeds. Shows no output.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Returns a command as a user would type it.
pub(crate) fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Returns whether this user is root.
pub(crate) fn is_root() -> bool {
    succeeds(command("sh").args(["-c", "test $(id -u) = 0"]))
}

/// Installs Debian packages if this is Debian and the user is root.
pub(crate) fn install_packages(step: &mut Step<'_>, packages: &[&str]) -> Result<()> {
    let may = is_root() && succeeds(command("apt-get").arg("--version"));
    ensure!(may, "`{}` can be installed as root on Debian only", packages.join(" "));
    step.run(command("apt-get").args(["update", "-q"]))?;
    let mut install = command("apt-get");
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    step.run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
