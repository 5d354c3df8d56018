//! Checks of bytes that claim to be a policy, with errors in terms of WIT and a remedy.

use wasmparser::BinaryReaderError;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::surface::{Interface, Surface};
use crate::policy::error::{PolicyError, one_line, short_name};

/// The interface that a policy exports.
const EXPORT: &str = "policy";
/// The interfaces that a policy may import, and their functions.
const IMPORTS: [(&str, &[&str]); 4] = [
    ("types", &[]),
    ("images", &["list", "get", "inspect", "remove", "restore", "prune", "select"]),
    ("usage", &["get-usage", "get-costs", "reclaimable-bytes", "get-history", "disk", "get-budget"]),
    ("report", &["log", "explain"]),
];

/// The interfaces of WASI, which policies don't get, by the beginning of the interface's name.
const FOREIGN: [(&str, &str); 8] = [
    ("wasi:sockets/", "policies get no network"),
    ("wasi:http/", "policies get no network"),
    ("wasi:filesystem/", "policies get no files: what they decide about comes through `larder:image`"),
    ("wasi:clocks/", "policies get no clock: the request has the instant that counts as now"),
    ("wasi:random/", "policies get no randomness, so that they decide the same every time"),
    ("wasi:cli/", "policies get no environment and no standard streams: `report.log` takes their place"),
    ("wasi:io/", "policies get no streams: `report.log` takes the place of printing"),
    ("wasi_snapshot_preview1", "policies get no WASI"),
];

/// Tells a component from everything else by its first bytes (WebAssembly binary format, magic and version).
pub(super) fn check_header(bytes: &[u8]) -> Result<(), PolicyError> {
    let not = |found: &str, remedy| Err(PolicyError::NotAComponent { found: found.to_owned(), remedy });
    const BUILD: &str = "build it as a WebAssembly component of the world `larder:image/image-policy`";
    match bytes {
        [] => not("the file is empty", BUILD),
        [0, b'a', b's', b'm', version @ ..] => match version {
            [0x0d, 0, 1, 0, ..] => Ok(()),
            [1, 0, 0, 0, ..] => not(
                "a core WebAssembly module",
                "make a component of it: `wasm-tools component embed wit module.wasm | wasm-tools component new - -o policy.wasm`",
            ),
            [_, _, _, _, ..] => not("WebAssembly of a version that this host does not know", BUILD),
            _ => not("WebAssembly that is cut off after its first bytes", "copy or build it again"),
        },
        [b'(', ..] => {
            not("WebAssembly as text", "translate it: `wasm-tools parse policy.wat -o policy.wasm`")
        }
        [0x1f, 0x8b, ..] => not("a gzip file", "unpack it"),
        [b'P', b'K', ..] => not("a zip file", "unpack it"),
        [0x7f, b'E', b'L', b'F', ..] => not("a program for this machine", BUILD),
        _ => not("not WebAssembly", BUILD),
    }
}

/// Returns the error of a component that the compiler does not accept.
pub(super) fn damaged(error: &wasmtime::Error) -> PolicyError {
    refused(&error.root_cause().to_string())
}

/// Returns the error of bytes that are no sequence of sections.
pub(super) fn unreadable(error: &BinaryReaderError) -> PolicyError {
    refused(&error.to_string())
}

fn refused(cause: &str) -> PolicyError {
    let cause = one_line(cause);
    if cause.contains("unexpected end") {
        return PolicyError::NotAComponent {
            found: "a component that is cut off before its end".to_owned(),
            remedy: "copy or build it again",
        };
    }
    PolicyError::NotAComponent {
        found: format!("a component that is damaged, or uses what policies don't have ({cause})"),
        remedy: "build it again, without threads, 64-bit memories, exceptions and async",
    }
}

/// Checks that a component imports nothing but interfaces of the contract, and exports a policy. Compiles nothing.
pub(super) fn check_names(bytes: &[u8]) -> Result<(), PolicyError> {
    let surface = Surface::read(bytes).map_err(|error| unreadable(&error))?;
    for name in &surface.imports {
        let Some(Interface { interface, version }) = Interface::of_contract(name) else {
            let known = FOREIGN.iter().find(|(prefix, _)| name.starts_with(prefix));
            let generic = "policies get nothing but `larder:image`";
            let reason = known.map_or(generic, |(_, reason)| reason);
            return Err(PolicyError::ForeignImport { import: short_name(name), reason });
        };
        if !speaks(version) {
            return Err(PolicyError::WrongVersion { direction: "imports", interface: short_name(name) });
        }
        if functions_of(interface).is_none() {
            return Err(unknown_import(name));
        }
    }
    for name in &surface.exports {
        match Interface::of_contract(name) {
            Some(Interface { interface: EXPORT, version }) if speaks(version) => return Ok(()),
            Some(Interface { interface: EXPORT, .. }) => {
                return Err(PolicyError::WrongVersion { direction: "exports", interface: short_name(name) });
            }
            _ => {}
        }
    }
    Err(another_world(&surface.exports))
}

/// Checks that a component uses the interfaces that it imports as this version of the contract has them.
pub(super) fn check_functions(engine: &Engine, component: &Component) -> Result<(), PolicyError> {
    for (name, item) in component.component_type().imports(engine) {
        let known = Interface::of_contract(name).and_then(|name| functions_of(name.interface));
        let (Some(functions), ComponentItem::ComponentInstance(instance)) = (known, item.ty) else {
            // Names were checked before: it is the type that is another.
            return Err(other_types());
        };
        let mut wanted = instance
            .exports(engine)
            .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
            .map(|(function, _)| function);
        if let Some(function) = wanted.find(|function| !functions.contains(function)) {
            let interface = name.split_once('@').map_or(name, |(interface, _)| interface);
            return Err(unknown_import(&format!("{interface}.{function}")));
        }
    }
    Ok(())
}

fn functions_of(interface: &str) -> Option<&'static [&'static str]> {
    IMPORTS.iter().find(|(known, _)| *known == interface).map(|(_, functions)| *functions)
}

fn unknown_import(import: &str) -> PolicyError {
    let reason = "this version of `larder:image` does not have it: rebuild against its `wit/`";
    PolicyError::ForeignImport { import: short_name(import), reason }
}

fn another_world(exports: &[String]) -> PolicyError {
    let name = |name: &String| format!("`{}`", short_name(name));
    let exports = match exports {
        [] => "nothing".to_owned(),
        [first, second, _, _, ..] => {
            format!("{}, {} and {} more", name(first), name(second), exports.len() - 2)
        }
        few => few.iter().map(name).collect::<Vec<_>>().join(", "),
    };
    PolicyError::NotAComponent {
        found: format!("a component of another world, which exports {exports}"),
        remedy: "a policy exports `larder:image/policy`: build it for the world `larder:image/image-policy`",
    }
}

/// Returns the error of a component whose names and versions are right, and whose types are not.
pub(super) fn other_types() -> PolicyError {
    PolicyError::NotAComponent {
        found: "a component whose `larder:image` has other types than this host's".to_owned(),
        remedy: "rebuild it against this host's `wit/`",
    }
}

/// Returns whether an interface of this version is one that this host has: before 1.0, the minor version decides.
fn speaks(version: &str) -> bool {
    version.strip_prefix(crate::policy::WIT_VERSION).is_some_and(|patch| patch.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not a component is called by its name, with what to do about it.
    #[test]
    fn headers() {
        let found = |bytes: &[u8]| match check_header(bytes) {
            Ok(()) => "a component".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found(b"\0asm\x0d\0\x01\0"), "a component");
        let table: [(&[u8], &str); 8] = [
            (b"", "the file is empty"),
            (b"\0asm", "WebAssembly that is cut off"),
            (
                b"\0asm\x01\0\0\0",
                "a core WebAssembly module; make a component of it: `wasm-tools component embed",
            ),
            (b"\0asm\x02\0\0\0", "WebAssembly of a version"),
            (b"(component)", "WebAssembly as text; translate it"),
            (b"\x1f\x8b\x08", "a gzip file; unpack it"),
            (b"\x7fELF", "a program for this machine"),
            (b"#!/bin/sh", "not WebAssembly; build it"),
        ];
        for (bytes, expected) in table {
            let found = found(bytes);
            assert!(found.starts_with(&format!("this is not a policy: {expected}")), "{found}");
        }
    }

    /// The functions that a policy may import are those of the contract.
    #[test]
    fn imports_are_those_of_the_contract() {
        let contract = [
            ("types", include_str!("../../../../../wit/types.wit")),
            ("images", include_str!("../../../../../wit/images.wit")),
            ("usage", include_str!("../../../../../wit/usage.wit")),
            ("report", include_str!("../../../../../wit/report.wit")),
        ];
        for ((interface, text), (name, functions)) in contract.into_iter().zip(IMPORTS) {
            let declared: Vec<_> =
                text.lines().filter_map(|line| line.trim().split_once(": func(")).collect();
            let declared: Vec<_> = declared.iter().map(|(name, _)| name.trim_start_matches('%')).collect();
            assert_eq!((interface, declared), (name, functions.to_vec()));
        }
    }

    /// Patches of a version speak to each other, versions before and after don't.
    #[test]
    fn versions() {
        for (version, expected) in [
            ("0.2.0", true),
            ("0.2.7", true),
            ("0.20.0", false),
            ("0.1.0", false),
            ("0.3.0", false),
            ("", false),
        ] {
            assert_eq!(speaks(version), expected, "{version}");
        }
    }
}
