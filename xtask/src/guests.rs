//! `cargo xtask guests`: every policy as a component.
//!
//! A policy is a crate in `guest/policies/`. It is compiled to a core module, made a component, and refused if that
//! imports anything but `larder:image`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::shell;
use crate::wasm_target::WasmCompiler;

/// Builds every policy. Gives the components.
pub(crate) fn run() -> Result<Vec<PathBuf>> {
    let names = names()?;
    let modules = shell::target().join("wasm");
    let mut build = WasmCompiler::find()?.build();
    build.args(["--quiet", "--profile", "policy", "--target-dir"]).arg(&modules);
    for name in &names {
        build.args(["--package", name]);
    }
    shell::run(&mut build)?;

    let components = shell::target().join("policies");
    fs::create_dir_all(&components).with_context(|| format!("could not make `{}`", components.display()))?;
    let mut made = Vec::new();
    for name in names {
        let module =
            modules.join("wasm32-unknown-unknown/policy").join(name.replace('-', "_")).with_extension("wasm");
        let component = components.join(&name).with_extension("wasm");
        make_component(&module, &component).with_context(|| format!("the policy `{name}`"))?;
        made.push(component);
    }
    Ok(made)
}

/// The policies that there are, sorted.
fn names() -> Result<Vec<String>> {
    let directory = shell::root().join("guest/policies");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("could not read `{}`", directory.display()))?
    {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn make_component(module: &Path, component: &Path) -> Result<()> {
    let bytes = fs::read(module).with_context(|| format!("could not read `{}`", module.display()))?;
    let bytes = ComponentEncoder::default().validate(true).module(&bytes)?.encode()?;
    check_world(&bytes)?;
    // Not touched where it is the same: tests and tools tell by its time whether it changed.
    if fs::read(component).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    fs::write(component, &bytes).with_context(|| format!("could not write `{}`", component.display()))?;
    eprintln!("{} ({} bytes)", component.display(), bytes.len());
    Ok(())
}

/// Refuses a component that no host would run: one that imports anything else, or exports no policy.
fn check_world(component: &[u8]) -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("it is not a component");
    };
    for key in resolve.worlds[world].imports.keys() {
        let name = resolve.name_world_key(key);
        if !name.starts_with("larder:image/") {
            bail!("it imports `{name}`: a policy has nothing but `larder:image`");
        }
    }
    let mut exports = resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key));
    if !exports.any(|name| name.starts_with("larder:image/policy@")) {
        bail!("it exports no `larder:image/policy`: is `larder_guest::export_policy!` missing?");
    }
    Ok(())
}
