//! JavaScript: componentize-qjs puts `policy.js`, and the modules that it imports, into a QuickJS and takes a snapshot.
//!
//! WASI is stubbed: what of it is called traps. Without `--sync`, the component would want a host with asynchronous
//! components.

use std::path::Path;

use crate::tools::{COMPONENTIZE_QJS, NODE};
use crate::{KitError, Project, Tools, bindings, command};

pub(super) fn component(
    project: &Project,
    work: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    super::require(project, "policy.js")?;
    let scratch = super::scratch(work)?;
    let output = scratch.path().join("policy.wasm");
    let mut componentize = tools.node(COMPONENTIZE_QJS, progress)?;
    progress(&format!("componentizing {}", project.name()));
    componentize.arg("--wit").arg(project.contract(work)?).args(["-n", bindings::WORLD]);
    componentize.arg("--js").arg(project.directory().join("policy.js"));
    componentize.arg("--module-root").arg(project.directory());
    componentize.args(["--stub-wasi", "--sync", "-o"]).arg(&output);
    command::run(&mut componentize, NODE)?;
    super::read(&output)
}
