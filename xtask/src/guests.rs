//! `cargo xtask guests`: builds policies as components in `target/policies`, with the program `larder-guests` of the
//! author kit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::{cargo, command, target};
use crate::steps::{Announcement, Step, Steps};

/// The built-in policies of the program, in Rust.
pub(crate) const BUILTIN: [&str; 3] = ["disk-budget", "keep-recent", "max-age"];

/// The same policy in the other languages.
const OTHER_LANGUAGES: [&str; 4] =
    ["keep-recent-c", "keep-recent-go", "keep-recent-javascript", "keep-recent-python"];

/// The variable that names the directory of the built-in policies.
pub(crate) const EMBED: &str = "LARDER_BUILTIN_POLICIES";

/// The compilers of other languages that are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Languages {
    /// All of them.
    All,
    /// Those that are installed or can be installed.
    Available,
}

/// The packages that are compiled together with the author kit, so that common dependencies are compiled once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// Nothing.
    Nothing,
    /// The program without its optional parts, and the maker of images.
    Program,
}

impl Along {
    /// Returns the arguments that select the packages.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &["--package", "larder-kit"],
            Self::Program => &[
                "--package",
                "larder-kit",
                "--package",
                "larder-cli",
                "--package",
                "larder-images",
                "--package",
                "larder-features",
                "--no-default-features",
            ],
        }
    }
}

/// Builds the policies with these names, or all policies if there are none.
pub(crate) fn run_guests(names: &[String]) -> Result<()> {
    let mut steps = Steps::begin("guests");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    build_kit(&mut steps, Along::Nothing)?;
    let announcement = Announcement {
        name: "policies",
        does: "builds policies to target/policies, and installs the compilers that they need in target/tools",
        usually: "1 to 5 min",
    };
    steps.run(announcement, |step| step.run(program().args(names)))?;
    steps.finish();
    Ok(())
}

/// Compiles the author kit, which builds policies.
pub(crate) fn build_kit(steps: &mut Steps, along: Along) -> Result<()> {
    let announcement = match along {
        Along::Nothing => Announcement {
            name: "author kit",
            does: "compiles what makes components of policies",
            usually: "1 min",
        },
        Along::Program => Announcement {
            name: "program",
            does: "compiles the program, with it the engine that runs policies, and what the demo needs besides",
            usually: "6 min",
        },
    };
    steps.run(announcement, |step| {
        step.run(cargo().args(["build", "--locked", "--bins"]).args(along.arguments()))
    })
}

/// Builds policies in Rust, and returns their directory for compiling the program.
pub(crate) fn build_builtin(steps: &mut Steps, names: &[&str]) -> Result<PathBuf> {
    let announcement = Announcement {
        name: "policies",
        does: "compiles policies to WebAssembly components",
        usually: "30 s",
    };
    steps.run(announcement, |step| {
        step.run(program().args(names))?;
        embedded(names)
    })
}

/// Builds the policies in other languages than Rust.
pub(crate) fn build_other_languages(steps: &mut Steps, languages: Languages) -> Result<()> {
    let announcement = Announcement {
        name: "other languages",
        does: "installs compilers for C, Go, JavaScript and Python in target/tools, and builds a policy in each",
        usually: "2 to 4 min",
    };
    steps.run(announcement, |step| match languages {
        Languages::All => step.run(program().args(OTHER_LANGUAGES)),
        Languages::Available => {
            let list = target().join("policies.skipped");
            step.run(program().arg("--skipped").arg(&list).args(OTHER_LANGUAGES))?;
            let skipped =
                fs::read_to_string(&list).with_context(|| format!("could not read `{}`", list.display()))?;
            skipped.lines().for_each(|line| step.skip(line.to_owned()));
            Ok(())
        }
    })
}

/// Compiles the program again, with built-in policies.
pub(crate) fn embed(step: &mut Step<'_>, along: Along, policies: &Path) -> Result<()> {
    step.run(cargo().args(["build", "--locked", "--bins"]).args(along.arguments()).env(EMBED, policies))
}

fn program() -> std::process::Command {
    command(target().join("debug/larder-guests"))
}

/// Copies components to a directory of their own. Leaves unchanged files alone, so that the program is not compiled
/// again.
fn embedded(names: &[&str]) -> Result<PathBuf> {
    let directory = target().join("builtin");
    fs::create_dir_all(&directory).with_context(|| format!("could not make `{}`", directory.display()))?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if !path.file_stem().is_some_and(|stem| names.iter().any(|name| stem == *name)) {
            fs::remove_file(&path).with_context(|| format!("could not remove `{}`", path.display()))?;
        }
    }
    for name in names {
        let file = format!("{name}.wasm");
        let component = target().join("policies").join(&file);
        let bytes =
            fs::read(&component).with_context(|| format!("could not read `{}`", component.display()))?;
        let copy = directory.join(file);
        if fs::read(&copy).ok().as_deref() != Some(&bytes) {
            fs::write(&copy, bytes).with_context(|| format!("could not write `{}`", copy.display()))?;
        }
    }
    Ok(directory)
}
