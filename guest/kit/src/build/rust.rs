//! Rust: Cargo for `wasm32-unknown-unknown`, by rustup's compiler or else Debian's, then a component of the module.
//!
//! The crate is a `cdylib` on `larder-guest`, and has or inherits the profile `policy`. How the machine's Cargo is set up
//! for other builds does not matter: flags, wrappers, targets, linkers and profiles (`profile.rs`) of its environment and of
//! its configuration files are ignored.

mod profile;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::command::{self, Need};
use crate::{KitError, Project, component};

const TARGET: &str = "wasm32-unknown-unknown";

/// What Debian calls the compiler, the sources of its standard library, and the linker of the same LLVM.
pub const DEBIAN_RUST_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// The variable that names the linker, whatever a configuration file says.
const LINKER: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER";

const CARGO: Need =
    Need { purpose: "Rust cannot be built", remedy: "install Rust by rustup, from https://rustup.rs" };

/// How Rust is compiled on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compiler {
    /// The toolchain of the project has the target.
    Own,
    /// Debian's `rustc-web`, which builds the standard library along.
    Debian,
}

/// A line of what Cargo writes; most are about something else.
#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(default)]
    crate_types: Vec<String>,
}

pub(super) fn component(
    project: &Project,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    super::require(project, "Cargo.toml")?;
    let manifest = project.directory().join("Cargo.toml");
    progress(&format!("compiling {}", project.name()));
    let compiler = find_compiler(project.directory(), Some(progress))?;
    let mut cargo = compiler.cargo_build();
    for setting in profile::settings(&workspace_manifest(compiler, &manifest)?)? {
        cargo.arg("--config").arg(setting);
    }
    cargo.args(["--quiet", "--lib", "--profile", "policy", "--message-format", "json-render-diagnostics"]);
    cargo
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(work)
        .current_dir(project.directory());
    // Where a file moves what is compiled on the way.
    cargo.env("CARGO_BUILD_BUILD_DIR", work);
    let output = command::run(&mut cargo, CARGO).map_err(for_people)?;
    super::tell_warnings(&output, progress);
    let module = module(&output.stdout, &manifest).ok_or_else(|| {
        KitError::not_a_policy(
            "`Cargo.toml` makes no `cdylib`: set `crate-type = [\"cdylib\", \"rlib\"]` in `[lib]`",
        )
    })?;
    component::encode(&component::with_known_names(&super::read(&module)?)?, None)
}

/// Returns the manifest of a crate's workspace, which is the one that has the profiles.
fn workspace_manifest(compiler: Compiler, manifest: &Path) -> Result<PathBuf, KitError> {
    let mut locate = compiler.cargo();
    locate.args(["locate-project", "--workspace", "--message-format", "plain", "--manifest-path"]);
    Ok(command::run(locate.arg(manifest), CARGO)?.stdout.trim_end_matches('\n').into())
}

/// Leaves out of an error what Cargo writes for programs.
fn for_people(error: KitError) -> KitError {
    match error {
        KitError::Command { command, status, output } => {
            let lines = output.lines().filter(|line| !line.starts_with("{\"reason\":"));
            KitError::Command { command, status, output: lines.collect::<Vec<_>>().join("\n") }
        }
        other => other,
    }
}

/// Returns the module that Cargo made of this crate.
fn module(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let is_cdylib = |target: Target| target.crate_types.iter().any(|kind| kind == "cdylib");
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.manifest_path.as_deref() == Some(manifest))
        .filter_map(|message| message.target.is_some_and(is_cdylib).then_some(message.filenames))
        .flatten()
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// Whether policies in Rust can be compiled in this directory: its toolchain has the target, rustup can add it, or
/// Debian's compiler is installed.
///
/// # Errors
/// [`KitError::MissingProgram`] with what to install: [`DEBIAN_RUST_PACKAGES`] is one way.
pub fn check_rust_compiler(directory: &Path) -> Result<(), KitError> {
    find_compiler(directory, None).map(drop)
}

fn find_compiler(directory: &Path, progress: Option<&mut dyn FnMut(&str)>) -> Result<Compiler, KitError> {
    if has_target(directory) {
        return Ok(Compiler::Own);
    }
    if let Some(progress) = progress {
        progress(&format!("adding the target {TARGET}"));
    }
    if command::succeeds(Command::new("rustup").args(["target", "add", TARGET]).current_dir(directory)) {
        return Ok(Compiler::Own);
    }
    let files = ["/usr/bin/rustc", "/usr/bin/cargo", DEBIAN_LINKER];
    let has_files = files.iter().all(|path| Path::new(path).exists());
    if has_files && command::succeeds(Command::new("dpkg").arg("-s").args(DEBIAN_RUST_PACKAGES)) {
        return Ok(Compiler::Debian);
    }
    Err(KitError::MissingProgram {
        program: format!("rustc for {TARGET}"),
        purpose: "Rust cannot be built",
        remedy: "run `rustup target add wasm32-unknown-unknown`, or, as root on Debian, \
                 `apt-get install rustc-web cargo-web rust-web-src lld-19`",
    })
}

/// Whether the toolchain of a directory has the target's standard library.
fn has_target(directory: &Path) -> bool {
    let mut rustc = Command::new("rustc");
    let library =
        rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(directory).output();
    library.is_ok_and(|library| {
        library.status.success() && Path::new(String::from_utf8_lossy(&library.stdout).trim()).is_dir()
    })
}

impl Compiler {
    /// Returns Cargo, for which the machine's settings do not matter.
    fn cargo(self) -> Command {
        let mut cargo = Command::new(match self {
            Self::Own => "cargo",
            Self::Debian => "/usr/bin/cargo",
        });
        forget_settings(&mut cargo, std::env::vars_os().map(|(name, _)| name));
        cargo
    }

    /// Returns `cargo build` for the target.
    fn cargo_build(self) -> Command {
        let mut build = self.cargo();
        build.args(["build", "--target", TARGET]);
        match self {
            Self::Own => build.env("RUSTC", "rustc").env(LINKER, "rust-lld"),
            Self::Debian => {
                build.arg("-Zbuild-std=std,panic_abort");
                // Debian's compiler is a stable one; building the standard library is what nightlies do.
                build.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env(LINKER, DEBIAN_LINKER)
            }
        };
        build
    }
}

/// Has Cargo ignore how the machine is set up for other builds, by these variables of its environment or by its
/// configuration files. What Cargo fetches from, and how, stays as it is set.
fn forget_settings(cargo: &mut Command, variables: impl Iterator<Item = OsString>) {
    for variable in variables {
        let is_setting = variable.to_str().is_some_and(|name| {
            ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if is_setting {
            cargo.env_remove(variable);
        }
    }
    cargo.env_remove("RUSTFLAGS").env_remove("RUSTC_BOOTSTRAP");
    // Set and empty, these stand above what a file says; of flags, only these.
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env(variable, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the environment says about other builds, Cargo does not see it; what it needs to fetch crates it does.
    #[test]
    fn settings_are_forgotten() {
        let variables = [
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "PATH",
        ];
        let mut cargo = Command::new("cargo");
        forget_settings(&mut cargo, variables.map(OsString::from).into_iter());
        let seen = |name: &str| {
            let change = cargo.get_envs().find(|(variable, _)| *variable == name);
            change.map_or("as it is", |(_, value)| if value.is_some() { "empty" } else { "removed" })
        };
        for name in variables[..4].iter().chain(&["RUSTFLAGS", "RUSTC_BOOTSTRAP"]) {
            assert_eq!(seen(name), "removed", "{name}");
        }
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            assert_eq!(seen(name), "empty");
        }
        assert!(variables[4..].iter().all(|name| seen(name) == "as it is"));
    }

    /// An error of the compiler is told without what Cargo writes for programs.
    #[test]
    fn errors_are_for_people() {
        let output = "{\"reason\":\"build-finished\",\"success\":false}\nerror[E0382]: use of moved value\n  --> src/lib.rs:3:5";
        let error = KitError::Command {
            command: "cargo".into(),
            status: "exit status: 101".into(),
            output: output.into(),
        };
        assert_eq!(
            for_people(error).to_string(),
            "`cargo` failed: exit status: 101\nerror[E0382]: use of moved value\n  --> src/lib.rs:3:5"
        );
    }

    /// Of all that Cargo built, the module is the one of this crate.
    #[test]
    fn the_module_is_found_by_its_manifest() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","target":{"crate_types":["cdylib"]},"filenames":["/t/a.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/b/Cargo.toml","target":{"crate_types":["bin"]},"filenames":["/t/build"]}
not JSON
{"reason":"compiler-artifact","manifest_path":"/b/Cargo.toml","target":{"crate_types":["cdylib","rlib"]},"filenames":["/t/libb.rlib","/t/b.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(module(messages, Path::new("/b/Cargo.toml")), Some("/t/b.wasm".into()));
        assert_eq!(module(messages, Path::new("/c/Cargo.toml")), None);
    }
}
