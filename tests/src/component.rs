//! Policies as components.
//!
//! `cargo xtask test` builds them before the tests, and names their directory in `LARDER_POLICIES`. Without the
//! variable, a test builds the policy that it needs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::judge::SKIPPED;

/// Returns the directory of all build outputs.
pub fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |set| root.join(set))
}

/// Returns whether tests that take a minute per language run for all languages. `cargo xtask ci` requests it with
/// `LARDER_LANGUAGES=all`. Otherwise they run only for the quick languages.
pub fn has_all_languages() -> bool {
    std::env::var_os("LARDER_LANGUAGES").is_some_and(|which| which == "all")
}

/// Returns the component of a policy in Rust. Builds it if it is out of date.
///
/// # Panics
/// Panics if it cannot be built.
pub fn component(name: &str) -> PathBuf {
    find_component(name).unwrap_or_else(|| panic!("`{name}` was built before the tests"))
}

/// Returns the component of a policy. Prints that the test is skipped if the policy's language cannot be built on this
/// machine.
///
/// # Panics
/// Panics if it must be built and cannot be.
pub fn find_component(name: &str) -> Option<PathBuf> {
    let file = Path::new(name).with_extension("wasm");
    if let Some(built) = std::env::var_os("LARDER_POLICIES") {
        let component = PathBuf::from(built).join(file);
        if !component.exists() {
            eprintln!("{SKIPPED}the policy `{name}`, whose language cannot be built here");
            return None;
        }
        return Some(component);
    }
    static BUILT: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.get_or_insert_default().insert(name.to_owned()) {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["run", "--quiet", "--package", "larder-kit", "--bin", "larder-guests", "--", name])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .status();
        assert!(status.is_ok_and(|status| status.success()), "`cargo xtask guests {name}` failed");
    }
    Some(target().join("policies").join(file))
}
