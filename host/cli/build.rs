//! Puts policies into the program: every `NAME.wasm` of the directory that `LARDER_BUILTIN_POLICIES` names. Without the
//! variable the program has none. Strips a release.

use std::path::{Path, PathBuf};
use std::{env, fs};

const DIRECTORY: &str = "LARDER_BUILTIN_POLICIES";

fn main() {
    println!("cargo::rerun-if-env-changed={DIRECTORY}");
    strip();
    if let Err(problem) = write() {
        println!("cargo::error={problem}");
    }
}

/// Has the linker remove the names of functions from a release. Cargo does so by `strip = "symbols"` for a package of which
/// it overrides no setting of the profile, and for this one the size of the code is overridden.
fn strip() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    if is("PROFILE", "release") && is("DEBUG", "false") {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
}

/// Writes the expression that `src/builtin.rs` includes.
fn write() -> Result<(), String> {
    let directory = env::var_os(DIRECTORY).filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let policies = directory.map_or(Ok(Vec::new()), |directory| policies(&directory))?;
    let mut text = "&[\n".to_owned();
    for (name, file) in policies {
        println!("cargo::rerun-if-changed={file}");
        text += &format!("    Builtin {{ name: {name:?}, bytes: include_bytes!({file:?}) }},\n");
    }
    text += "]\n";
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("builtin.rs");
    fs::write(&output, text).map_err(|error| format!("could not write `{}`: {error}", output.display()))
}

/// Returns the names and files of the policies in a directory, sorted by name.
fn policies(directory: &Path) -> Result<Vec<(String, String)>, String> {
    let wrong = |problem: &str| format!("{DIRECTORY} is `{}`, {problem}", directory.display());
    if !directory.is_absolute() {
        return Err(wrong("which is not an absolute path"));
    }
    println!("cargo::rerun-if-changed={}", directory.display());
    let unreadable = |error| wrong(&format!("which could not be read: {error}"));
    let mut policies = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| is_name(stem));
        let (Some(name), Some(file)) = (name, path.to_str()) else {
            return Err(wrong(&format!(
                "and the name of `{}` in it is not that of a policy: lower-case letters, digits and `-`, beginning \
                 with a letter",
                path.file_name().unwrap_or_default().display()
            )));
        };
        policies.push((name.to_owned(), file.to_owned()));
    }
    policies.sort();
    Ok(policies)
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 64 && text.chars().all(allowed)
}
