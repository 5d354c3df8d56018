//! `cargo xtask guests`: every policy as a component, in whichever language.
//!
//! A policy is a directory of `guest/policies/` with a `policy.toml`, and `larder-kit` knows how each language is built.
//! Tools are installed to `target/tools`. A policy in Rust is given to Cargo each time, which knows what changed. One in
//! another language is built again only where its fingerprint is another than when it was built, which is kept beside
//! the component: that takes seconds, and the bytes of a component from JavaScript or Python differ each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use larder_kit::{DEBIAN_RUST_PACKAGES, Language, Project, Tools, check_rust_compiler};

use crate::shell::{install_packages, root, target};

/// The largest component of our policies in Rust, in bytes, as the toolchain of the workspace makes it. It is compiled
/// again on each host, so it is to stay small.
const RUST_LIMIT: u64 = 100 * 1024;

/// Builds the policies of these names, or every one. Gives the components.
pub(crate) fn run(names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut projects = projects()?;
    for name in names {
        ensure!(
            projects.iter().any(|project| project.name().as_str() == *name),
            "there is no policy `{name}`: there are {}",
            projects.iter().map(|project| format!("`{}`", project.name())).collect::<Vec<_>>().join(", ")
        );
    }
    if !names.is_empty() {
        projects.retain(|project| names.contains(&project.name().as_str()));
    }
    if projects.iter().any(|project| project.language() == Language::Rust) {
        install_rust_compiler()?;
    }
    let tools = Tools::in_directory(target().join("tools"));
    projects
        .into_iter()
        .map(|project| {
            let name = project.name().clone();
            make(project, &tools).with_context(|| format!("the policy `{name}`"))
        })
        .collect()
}

/// The policies that there are, sorted by name.
fn projects() -> Result<Vec<Project>> {
    let directory = root().join("guest/policies");
    let mut projects = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("could not read `{}`", directory.display()))?
    {
        projects.push(Project::open(&entry?.path())?);
    }
    projects.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    Ok(projects)
}

/// The component of a policy, built where it is not there or not up to date.
fn make(project: Project, tools: &Tools) -> Result<PathBuf> {
    let component = target().join("policies").join(project.name().as_str()).with_extension("wasm");
    if project.language() == Language::Rust {
        // One directory for all of them, since they have the same dependencies.
        let project = project.in_work_directory(target().join("wasm"));
        let built = project.build(tools, &component, &mut |_| {})?;
        ensure!(
            built.bytes <= RUST_LIMIT || !has_target(),
            "its component has {} bytes, and may have {RUST_LIMIT}: what does it contain that it did not before?",
            built.bytes
        );
        return Ok(component);
    }
    let stamp = component.with_extension("stamp");
    let fingerprint = project.fingerprint()?;
    if component.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == fingerprint) {
        return Ok(component);
    }
    let project = project.clone().in_work_directory(target().join("guests").join(project.name().as_str()));
    let built = project.build(tools, &component, &mut |step| eprintln!("{step}"))?;
    write(&stamp, &fingerprint)?;
    eprintln!("{} ({} bytes)", built.path.display(), built.bytes);
    Ok(component)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("could not write `{}`", path.display()))
}

/// Whether the toolchain of the workspace has the target of policies. Debian's compiler makes larger components.
fn has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).current_dir(root());
    let library = rustc.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    library.is_ok_and(|library| Path::new(&library).is_dir())
}

/// Installs Debian's compiler where no other can be had for WebAssembly.
fn install_rust_compiler() -> Result<()> {
    let Err(missing) = check_rust_compiler(&root()) else { return Ok(()) };
    eprintln!("{missing}; installing Debian's");
    if let Err(error) = install_packages(&DEBIAN_RUST_PACKAGES) {
        bail!("{missing} ({error:#})");
    }
    Ok(check_rust_compiler(&root())?)
}
