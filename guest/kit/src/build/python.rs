//! Python: componentize-py puts `policy.py`, and the modules that it imports, into a CPython and takes a snapshot.
//!
//! WASI is stubbed: what of it is called traps. The sources are copied first, since the interpreter leaves compiled
//! files beside what it reads.

use std::fs;
use std::path::Path;

use crate::tools::COMPONENTIZE_PY;
use crate::{KitError, Project, Tools, bindings, command, files};

pub(super) fn component(
    project: &Project,
    work: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    super::require(project, "policy.py")?;
    let scratch = super::scratch(work)?;
    let (sources, output) = (scratch.path().join("sources"), scratch.path().join("policy.wasm"));
    for path in project.sources()?.iter().filter(|path| path.extension().is_some_and(|e| e == "py")) {
        let copy = sources.join(path.strip_prefix(project.directory()).unwrap_or(path));
        files::make_directory(copy.parent().unwrap_or(&sources))?;
        fs::copy(path, &copy).map_err(KitError::io("copy", path))?;
    }
    let mut componentize = tools.python(COMPONENTIZE_PY, "componentize-py", progress)?;
    progress(&format!("componentizing {}", project.name()));
    componentize.arg("-d").arg(project.contract(work)?).args(["-w", bindings::WORLD]);
    componentize.args(["componentize", "--stub-wasi", "policy", "-p"]).arg(&sources);
    componentize.arg("-o").arg(&output);
    // Its own backtrace would stand where Python's error is.
    componentize.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    command::run(&mut componentize, super::PYTHON_PROGRAM)?;
    super::read(&output)
}
