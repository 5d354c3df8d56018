//! A compiler for `wasm32-unknown-unknown`: rustup's, or else Debian's.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{cargo, command, run, succeeds};

const TARGET: &str = "wasm32-unknown-unknown";

/// The compiler, the sources of its standard library, and the linker of the same LLVM, which it comes without.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// How policies are compiled on this machine.
pub(crate) enum WasmCompiler {
    /// The toolchain of this repository has the target.
    Own,
    /// Debian's `rustc-web` builds the standard library along.
    Debian,
}

impl WasmCompiler {
    /// Finds a compiler, installing it where it is missing.
    pub(crate) fn find() -> Result<Self> {
        if succeeds(command("rustup").args(["target", "add", TARGET])) || has_target() {
            return Ok(Self::Own);
        }
        if has_debian_compiler() {
            return Ok(Self::Debian);
        }
        eprintln!("rustup has no target `{TARGET}`: installing Debian's compiler instead");
        let install = ["install", "-y", "--no-install-recommends"];
        let installed = run(command("apt-get").args(["update", "-q"])).and_then(|()| {
            run(command("apt-get")
                .args(install)
                .args(DEBIAN_PACKAGES)
                .env("DEBIAN_FRONTEND", "noninteractive"))
        });
        match installed {
            Ok(()) if has_debian_compiler() => Ok(Self::Debian),
            Ok(()) => {
                bail!("Debian's `rust-web-src` was installed, and its sources are not where they should be")
            }
            Err(error) => bail!(
                "there is no compiler for `{TARGET}`: run `rustup target add {TARGET}`, or, as root on Debian, \
                 `apt-get install {}` ({error:#})",
                DEBIAN_PACKAGES.join(" ")
            ),
        }
    }

    /// `cargo build` for the target, as far as all policies share it.
    pub(crate) fn build(&self) -> Command {
        match self {
            Self::Own => {
                let mut build = cargo();
                build.args(["build", "--target", TARGET]);
                build
            }
            Self::Debian => {
                let mut build = command("/usr/bin/cargo");
                build.args(["build", "--target", TARGET, "-Zbuild-std=std,panic_abort"]);
                // Debian's compiler is a stable one; building the standard library is what nightlies do.
                build.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc");
                build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
                build
            }
        }
    }
}

/// Whether a toolchain that is not rustup's has the target's standard library.
fn has_target() -> bool {
    let library = command("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    library.is_ok_and(|library| Path::new(String::from_utf8_lossy(&library.stdout).trim()).is_dir())
}

fn has_debian_compiler() -> bool {
    ["/usr/bin/rustc", "/usr/bin/cargo", DEBIAN_LINKER].iter().all(|path| Path::new(path).exists())
        && succeeds(command("dpkg").arg("-s").args(DEBIAN_PACKAGES))
}
