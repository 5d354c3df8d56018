//! Guests as WebAssembly text: fields of a core module, made into a component of the contract.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use larder::policy::PolicyEngine;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// The one engine for all tests of a program, as a process has one. It keeps compiled code for other test processes.
pub static ENGINE: LazyLock<PolicyEngine> = LazyLock::new(|| {
    PolicyEngine::builder().code_cache(crate::target().join("tests-code")).build().expect("an engine starts")
});

/// Returns the component of a guest in `guest/hostile/`.
pub fn hostile_guest(name: &str) -> Vec<u8> {
    let path = hostile_guests().join(name).with_extension("wat");
    guest(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Returns the directory of the hostile guests.
pub fn hostile_guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/hostile")
}

/// Returns the binary of a guest. The text is a whole module or component, or the fields of a core module as
/// `guest/hostile/README.md` describes them.
///
/// # Panics
/// Panics if the text is invalid, because then the test is wrong.
pub fn guest(text: &str) -> Vec<u8> {
    let begins = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with(";;"));
    if begins.is_some_and(|line| line.starts_with("(component") || line.starts_with("(module")) {
        return wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    let prelude = include_str!("../../guest/hostile/prelude.wat");
    let missing = ["$on_allocate", "$on_describe", "$on_evaluate"]
        .into_iter()
        .filter(|name| !text.contains(&format!("(func {name}")))
        .map(|name| format!("(func {name})"))
        .collect::<String>();
    let module = format!("(module\n{text}\n{prelude}\n{missing})");
    let mut module = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    let (resolve, world) = &*WORLD;
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).expect("the contract");
    let encoder = ComponentEncoder::default().module(&module).expect("the module is one of the contract");
    encoder.validate(true).encode().expect("the module makes a component")
}

static WORLD: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
    let (package, _) = resolve.push_dir(wit).expect("the contract");
    let world = resolve.select_world(&[package], Some("image-policy")).expect("its world");
    (resolve, world)
});
