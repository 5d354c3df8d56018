//! Builds the policies of this repository: `larder-guests [--skipped FILE] [NAME]…`.
//!
//! Each comes to `target/policies/NAME.wasm`. A policy in Rust is given to Cargo each time, which knows what changed. One in
//! another language is built again only where its fingerprint is another than when it was built, which is kept beside
//! the component: that takes seconds, and the bytes of a component from JavaScript or Python differ each time.
//!
//! With `--skipped`, policies whose compilers cannot be installed here are left out, and named in that file with the
//! reason, a line each. A component that cannot be built is removed: what is in the directory is up to date.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use larder_kit::{DEBIAN_RUST_PACKAGES, Language, Project, Tools, check_rust_compiler, prepare};

/// The largest component of our policies in Rust, in bytes, as the toolchain of the workspace makes it. It is compiled
/// again on each host, so it is to stay small.
const RUST_LIMIT: u64 = 100 * 1024;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match build_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build_all() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let skipped = arguments.next_if(|first| first == "--skipped").and_then(|_| arguments.next());
    let projects = chosen(&arguments.collect::<Vec<_>>())?;
    let tools = Tools::in_directory(target().join("tools"));
    let mut missing = String::new();
    for project in projects {
        let name = project.name().clone();
        let component = target().join("policies").join(name.as_str()).with_extension("wasm");
        if let Err(error) = prepare_for(&project, &tools) {
            if component.exists() {
                fs::remove_file(&component)?;
            }
            if skipped.is_none() {
                return Err(format!("the policy `{name}`: {error}").into());
            }
            let reason = error.to_string();
            missing += &format!("the policy `{name}`: {}\n", reason.lines().next().unwrap_or_default());
            continue;
        }
        make(project, &component, &tools).map_err(|error| format!("the policy `{name}`: {error}"))?;
    }
    if let Some(file) = skipped {
        fs::write(file, missing)?;
    }
    Ok(())
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |set| root().join(set))
}

/// Returns the policies of these names, or every one, sorted by name.
fn chosen(names: &[String]) -> Result<Vec<Project>> {
    let directory = root().join("guest/policies");
    let mut projects = Vec::new();
    for entry in fs::read_dir(&directory)? {
        projects.push(Project::open(&entry?.path())?);
    }
    projects.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    let all: Vec<String> = projects.iter().map(|project| format!("`{}`", project.name())).collect();
    for name in names {
        if !projects.iter().any(|project| project.name().as_str() == name) {
            return Err(format!("there is no policy `{name}`: there are {}", all.join(", ")).into());
        }
    }
    projects.retain(|project| names.is_empty() || names.iter().any(|name| name == project.name().as_str()));
    Ok(projects)
}

/// Installs what the policy's language needs, or says what is missing.
fn prepare_for(project: &Project, tools: &Tools) -> Result<()> {
    if project.language() == Language::Rust
        && let Err(missing) = check_rust_compiler(root())
    {
        eprintln!("{missing}; installing Debian's");
        install_packages(&DEBIAN_RUST_PACKAGES).map_err(|error| format!("{missing} ({error})"))?;
    }
    Ok(prepare(project.language(), root(), tools, &mut |step| eprintln!("{step}"))?)
}

/// Builds a component where it is not there or not up to date.
fn make(project: Project, component: &Path, tools: &Tools) -> Result<()> {
    if project.language() == Language::Rust {
        // One directory for all of them, since they have the same dependencies.
        let project = project.in_work_directory(target().join("wasm"));
        let built = project.build(tools, component, &mut |step| eprintln!("{step}"))?;
        if built.bytes > RUST_LIMIT && has_target() {
            let text = "its component has too many bytes: what does it contain that it did not before?";
            return Err(format!("{text} {} of {RUST_LIMIT}", built.bytes).into());
        }
        return Ok(());
    }
    let stamp = component.with_extension("stamp");
    let fingerprint = project.fingerprint()?;
    if component.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == fingerprint) {
        return Ok(());
    }
    let project = project.clone().in_work_directory(target().join("guests").join(project.name().as_str()));
    let built = project.build(tools, component, &mut |step| eprintln!("{step}"))?;
    fs::write(&stamp, &fingerprint)?;
    eprintln!("{} ({} bytes)", built.path.display(), built.bytes);
    Ok(())
}

/// Tells whether the toolchain of the workspace has the target of policies. Debian's compiler makes larger components.
fn has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).current_dir(root());
    let library = rustc.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    library.is_ok_and(|library| Path::new(&library).is_dir())
}

/// Installs Debian packages, where this is Debian and one is root.
fn install_packages(packages: &[&str]) -> Result<()> {
    let mut install = Command::new("sh");
    install.args([
        "-c",
        "test $(id -u) = 0 && apt-get update -q && apt-get install -y -q --no-install-recommends \"$@\"",
        "sh",
    ]);
    let status = install.args(packages).env("DEBIAN_FRONTEND", "noninteractive").status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` can be installed as root on Debian only", packages.join(" ")).into())
}
