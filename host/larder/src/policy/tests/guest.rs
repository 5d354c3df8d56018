//! Guests as WebAssembly text: a core module with the lowered imports and exports of the contract, made a component.

use std::sync::LazyLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::policy::PolicyEngine;

/// One engine for all tests, as a process has one.
pub(super) static ENGINE: LazyLock<PolicyEngine> = LazyLock::new(|| PolicyEngine::new().expect("an engine"));

/// The parts of a guest that differ.
pub(super) struct Guest<'a> {
    /// Imports, from [`GET`] and the like.
    pub(super) imports: &'a [&'a str],
    /// Functions, tables, data, a start function. Memory below 4096 is the template's.
    pub(super) extra: &'a str,
    /// Instructions of `describe`, before it returns.
    pub(super) describe: &'a str,
    /// Instructions of `evaluate`, which may return the pointer to its result: `$ok`, or 0 for the error `no`.
    pub(super) evaluate: &'a str,
    /// Instructions of the allocator, before it allocates.
    pub(super) realloc: &'a str,
    /// The name it describes itself with: 5 characters.
    pub(super) name: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self { imports: &[], extra: "", describe: "", evaluate: "", realloc: "", name: "guest" }
    }
}

pub(super) const LIST: &str = r#"(import "larder:image/images@0.1.0" "list" (func $list (param i32)))"#;
pub(super) const GET: &str = r#"(import "larder:image/images@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
pub(super) const REMOVE: &str =
    r#"(import "larder:image/images@0.1.0" "remove" (func $remove (param i32 i32 i32 i32)))"#;
pub(super) const RECLAIMABLE: &str =
    r#"(import "larder:image/usage@0.1.0" "reclaimable-bytes" (func $reclaimable (param i32 i32 i32)))"#;
pub(super) const LOG: &str = r#"(import "larder:image/report@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
pub(super) const EXPLAIN: &str =
    r#"(import "larder:image/report@0.1.0" "explain" (func $explain (param i32 i32 i32 i32)))"#;

impl Guest<'_> {
    /// The component.
    pub(super) fn component(&self) -> Vec<u8> {
        let Self { imports, extra, describe, evaluate, realloc, name } = self;
        let imports = imports.join("\n");
        assert_eq!(name.len(), 5, "the template has room for five characters");
        let module = format!(
            r#"(module
                {imports}
                (memory (export "memory") 1)
                (global $heap (mut i32) (i32.const 32768))
                (global $ok i32 (i32.const 512))
                (data (i32.const 0) "\01\00\00\00\90\00\00\00\02\00\00\00")
                (data (i32.const 144) "no")
                (data (i32.const 160) "{name}1.2.0A guest for tests.{{}}")
                (data (i32.const 256) "\a0\00\00\00\05\00\00\00" "\a5\00\00\00\05\00\00\00"
                    "\aa\00\00\00\12\00\00\00" "\bc\00\00\00\02\00\00\00")
                {extra}
                ;; Gives the same room again and again: nothing that these guests are given is kept.
                (func $allocate (export "cabi_realloc") (param $old i32) (param i32 i32) (param $size i32) (result i32)
                    {realloc}
                    (if (i32.gt_u (i32.add (global.get $heap) (local.get $size))
                            (i32.mul (memory.size) (i32.const 65536)))
                        (then (drop (memory.grow
                            (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1))))))
                    (global.get $heap))
                (func $describe (export "larder:image/policy@0.1.0#describe") (result i32)
                    {describe}
                    (i32.const 256))
                (func $evaluate (export "larder:image/policy@0.1.0#evaluate") (param i64 i32 i32 i32) (result i32)
                    (local $i i32)
                    {evaluate}
                    (global.get $ok))
            )"#
        );
        let mut module = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}\n{module}"));
        let (resolve, world) = &*WORLD;
        embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).expect("the contract");
        let encoder = ComponentEncoder::default().module(&module).expect("a module of the contract");
        encoder.validate(true).encode().expect("a component")
    }
}

static WORLD: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_dir(wit).expect("the contract");
    let world = resolve.select_world(&[package], Some("image-policy")).expect("its world");
    (resolve, world)
});
