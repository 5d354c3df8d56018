//! C: bindings, the sources and zig's clang, which brings a C library for WASI; then a component of the module.
//!
//! Every `*.c` at the top of the project is compiled, with the bindings' `image_policy.h` on the include path. The
//! C library imports WASI only for what is used of it: memory, strings and sorting need none, `printf` and `time` do,
//! and the component is refused then.

use std::path::Path;

use crate::tools::ZIGLANG;
use crate::{KitError, Project, Tools, bindings, command, component, files};

const FLAGS: [&str; 8] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-std=c17",
    "-Oz",
    "-Wall",
    "-Wextra",
    // Without any, zig's linker leaves out the names of functions, too, which the backtrace of a trap is made of.
    "-g1",
    // The default is 16 MiB, which every run of the policy would pay for.
    "-Wl,-z,stack-size=65536",
];

pub(super) fn component(
    project: &Project,
    work: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, KitError> {
    let is_source = |path: &Path| {
        path.parent() == Some(project.directory())
            && path.extension().is_some_and(|extension| extension == "c")
    };
    let mut sources = project.sources()?;
    sources.retain(|path| is_source(path));
    if sources.is_empty() {
        super::require(project, "policy.c")?;
    }
    let bindings = work.join("bindings");
    let generator = wit_bindgen_c::Opts::default().build();
    bindings::generate(generator, &project.contract(work)?, &bindings)?;
    let scratch = super::scratch(work)?;
    let module = scratch.path().join("policy.wasm");
    let mut clang = tools.python(ZIGLANG, "python-zig", progress)?;
    progress(&format!("compiling {}", project.name()));
    clang.arg("cc").args(FLAGS).arg("-I").arg(&bindings).args(&sources);
    clang.args(["image_policy.c", "image_policy_component_type.o"].map(|file| bindings.join(file)));
    clang.arg("-o").arg(&module).current_dir(project.directory());
    // The C library is compiled once for all projects.
    clang.env("ZIG_GLOBAL_CACHE_DIR", files::absolute(tools.directory())?.join("zig-cache"));
    clang.env("ZIG_LOCAL_CACHE_DIR", work.join("zig-cache"));
    let output = command::run(&mut clang, super::PYTHON_PROGRAM)?;
    super::tell_warnings(&output, progress);
    component::encode(&component::without_debug_info(&super::read(&module)?)?, None)
}
