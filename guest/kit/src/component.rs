//! The last steps to a component: from a core module, and what is looked at in every one.

use wasm_encoder::{NameMap, NameSection, Section as _};
use wasmparser::{CustomSectionReader, KnownCustom, Name, Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::KitError;

/// Where the SDK for Rust has its bindings: what is below is named as in the contract.
const BINDINGS: &str = "larder_guest::component::bindings::";

/// The beginning of the names of everything that a policy may import.
const PACKAGE: &str = "larder:image/";

/// The version of the contract, as hosts compare it: patch versions don't matter.
const VERSION: &str = "0.2";

/// Makes a component of a core module that was built with the bindings of the contract.
///
/// An adapter is what stands in, inside of the component, for a module that it imports from.
///
/// # Errors
/// [`KitError::NotAPolicy`].
pub(crate) fn encode(module: &[u8], adapter: Option<(&str, &[u8])>) -> Result<Vec<u8>, KitError> {
    check_imports(module, adapter.map(|(name, _)| name))?;
    // With its causes, in one line.
    let told = |error| KitError::NotAPolicy { message: format!("{error:#}") };
    let mut encoder = ComponentEncoder::default().validate(true).module(module).map_err(told)?;
    if let Some((name, adapter)) = adapter {
        encoder = encoder.adapter(name, adapter).map_err(told)?;
    }
    encoder.encode().map_err(told)
}

/// A module without what only a debugger reads. The names of functions stay, for the backtrace of a policy that traps.
pub(crate) fn without_debug_info(module: &[u8]) -> Result<Vec<u8>, KitError> {
    replace_custom_sections(module, |section| {
        Ok(if section.name().starts_with(".debug_") { Replacement::Nothing } else { Replacement::Same })
    })
}

/// A module from Rust with the names of the functions that an author knows, as they are written in Rust.
///
/// The symbols of all functions are a quarter of a policy. A backtrace leaves out those that have no name.
pub(crate) fn with_known_names(module: &[u8]) -> Result<Vec<u8>, KitError> {
    replace_custom_sections(module, |section| {
        let KnownCustom::Name(subsections) = section.as_known() else { return Ok(Replacement::Same) };
        let mut names = NameMap::new();
        for subsection in subsections {
            let Name::Function(functions) = subsection.map_err(KitError::not_a_policy)? else { continue };
            for function in functions {
                let function = function.map_err(KitError::not_a_policy)?;
                let name = format!("{:#}", rustc_demangle::demangle(function.name)).replace(BINDINGS, "");
                if !is_of_library(&name) {
                    names.append(function.index, &name);
                }
            }
        }
        let mut section = NameSection::new();
        section.functions(&names);
        let mut bytes = Vec::new();
        section.append_to(&mut bytes);
        Ok(Replacement::Bytes(bytes))
    })
}

/// Whether a function or, in `<Vec<T> as Drop>::drop`, the type that has it is of the standard library, or of what it,
/// serde and the bindings are made of.
fn is_of_library(function: &str) -> bool {
    let libraries = [
        "__rustc",
        "alloc",
        "compiler_builtins",
        "core",
        "dlmalloc",
        "hashbrown",
        "serde_core",
        "std",
        "wit_bindgen",
    ];
    let Some(implementation) = function.strip_prefix('<') else {
        return function.split_once("::").is_some_and(|(root, _)| libraries.contains(&root));
    };
    let path = implementation.trim_start_matches(['<', '&', '[', '(']);
    let path = path.strip_prefix("mut ").or_else(|| path.strip_prefix("dyn ")).unwrap_or(path);
    let root = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    // A type without a path is a primitive one, or a parameter.
    libraries.contains(&root) || !path.starts_with(&format!("{root}::"))
}

/// What a custom section becomes.
enum Replacement {
    Same,
    Nothing,
    /// A section with its header.
    Bytes(Vec<u8>),
}

fn replace_custom_sections(
    module: &[u8],
    replacement: impl Fn(&CustomSectionReader<'_>) -> Result<Replacement, KitError>,
) -> Result<Vec<u8>, KitError> {
    let mut kept = Vec::with_capacity(module.len());
    // Sections follow each other without a gap, so each begins, with its header, where the one before it ended.
    let mut begins = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(KitError::not_a_policy)?;
        let (ends, replacement) = match &payload {
            Payload::Version { range, .. } => (range.end, Replacement::Same),
            Payload::CustomSection(section) => (section.range().end, replacement(section)?),
            other => match other.as_section() {
                Some((_, range)) => (range.end, Replacement::Same),
                None => continue,
            },
        };
        match replacement {
            Replacement::Same => kept.extend_from_slice(&module[begins..ends]),
            Replacement::Nothing => {}
            Replacement::Bytes(bytes) => kept.extend(bytes),
        }
        begins = ends;
    }
    Ok(kept)
}

/// Refuses a module that imports something which no component could have from the host.
fn check_imports(module: &[u8], adapted: Option<&str>) -> Result<(), KitError> {
    for payload in Parser::new(0).parse_all(module) {
        let Payload::ImportSection(imports) = payload.map_err(KitError::not_a_policy)? else { continue };
        for import in imports.into_imports() {
            let import = import.map_err(KitError::not_a_policy)?;
            // An import of a compiler's own: it begins with `[`, or is what bindings call the component itself.
            if import.module.starts_with(PACKAGE) {
                check_version(import.module)?;
            } else if !import.module.starts_with(['[', '$']) && adapted != Some(import.module) {
                return Err(foreign(&format!("{}.{}", import.module, import.name)));
            }
        }
    }
    Ok(())
}

fn foreign(import: &str) -> KitError {
    KitError::NotAPolicy {
        message: format!(
            "it imports `{import}`, and a policy has nothing but `larder:image`; `larder policy languages` says how \
             its language builds without it"
        ),
    }
}

/// Refuses an interface of another version of the contract.
fn check_version(interface: &str) -> Result<(), KitError> {
    let version = interface.split_once('@').map_or("", |(_, version)| version);
    let rest = version.strip_prefix(VERSION);
    if rest.is_some_and(|rest| rest.starts_with('.')) {
        return Ok(());
    }
    Err(KitError::NotAPolicy {
        message: format!(
            "it is built against `{interface}`, and hosts have {VERSION}: `larder policy update` brings the contract up \
             to date"
        ),
    })
}

/// Refuses what no host would run: what imports anything but `larder:image`, or exports no policy.
///
/// # Errors
/// [`KitError::NotAPolicy`].
pub(crate) fn check(component: &[u8]) -> Result<(), KitError> {
    let refused = |message: String| Err(KitError::NotAPolicy { message });
    let DecodedWasm::Component(resolve, world) =
        wit_component::decode(component).map_err(KitError::not_a_policy)?
    else {
        return refused("it is not a component".to_owned());
    };
    let world = &resolve.worlds[world];
    for key in world.imports.keys() {
        let name = resolve.name_world_key(key);
        if !name.starts_with(PACKAGE) {
            return Err(foreign(&name));
        }
        check_version(&name)?;
    }
    // Some languages export more, such as `init`: that is harmless.
    let mut exports = world.exports.keys().map(|key| resolve.name_world_key(key));
    match exports.find(|name| name.starts_with("larder:image/policy@")) {
        Some(name) => check_version(&name),
        None => refused("it exports no `larder:image/policy`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(component: &str) -> String {
        let bytes = wat::parse_str(component).expect("a component");
        check(&bytes).map_or_else(|error| error.to_string(), |()| "a policy".to_owned())
    }

    /// A component of another world is refused with what it imports, or what it does not export.
    #[test]
    fn other_worlds() {
        assert_eq!(
            checked(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#),
            "what was built is not a policy: it imports `wasi:cli/environment@0.2.0`, and a policy has nothing but \
             `larder:image`; `larder policy languages` says how its language builds without it"
        );
        assert_eq!(
            checked("(component)"),
            "what was built is not a policy: it exports no `larder:image/policy`"
        );
    }

    /// Patch versions of the contract don't matter, and another version is refused, with what to do.
    #[test]
    fn versions() {
        let component = |version: &str| {
            checked(&format!(
                r#"(component (instance $i) (export "larder:image/policy@{version}" (instance $i)))"#
            ))
        };
        assert_eq!(component("0.2.0"), "a policy");
        assert_eq!(component("0.2.9"), "a policy");
        for version in ["0.1.0", "0.20.0", "0.9.0", "1.2.0"] {
            assert_eq!(
                component(version),
                format!(
                    "what was built is not a policy: it is built against `larder:image/policy@{version}`, and hosts have \
                     0.2: `larder policy update` brings the contract up to date"
                )
            );
        }
        let module =
            wat::parse_str(r#"(module (import "larder:image/images@0.1.0" "list" (func)))"#).unwrap();
        assert!(encode(&module, None).unwrap_err().to_string().contains("`larder:image/images@0.1.0`"));
    }

    /// A core module that imports from nowhere is refused, with the import named.
    #[test]
    fn a_module_with_a_foreign_import() {
        let module = wat::parse_str(r#"(module (import "env" "elsewhere" (func)))"#).expect("a module");
        let error = encode(&module, None).unwrap_err().to_string();
        assert!(
            error.contains("it imports `env.elsewhere`, and a policy has nothing but `larder:image`"),
            "{error}"
        );
    }

    /// What only a debugger reads is taken out; everything else stays, byte for byte.
    #[test]
    fn debug_info_is_taken_out() {
        let module = |debug: &str| {
            let text = format!(
                r#"(module
                    {debug}
                    (type (func)) (import "larder:image/images@0.2.0" "list" (func (type 0)))
                    (func $named (export "f") call 0) (memory 1) (data (i32.const 0) "text")
                    (@custom "producers" "kept"))"#
            );
            wat::parse_str(text).expect("a module")
        };
        let with = module(
            r#"(@custom ".debug_line" (before first) "gone") (@custom ".debug_str" (after data) "gone")"#,
        );
        assert_eq!(without_debug_info(&with).unwrap(), module(""));
        assert!(without_debug_info(&with[..with.len() - 1]).is_err());
    }

    /// A module from Rust keeps the names of what is neither of the standard library nor of serde, in Rust's spelling.
    #[test]
    fn names_that_are_known() {
        let module = wat::parse_str(
            r#"(module
                (func $cabi_realloc)
                (func $_ZN11keep_recent6decide17h1a0871bb0fbd2c24E)
                (func $_ZN72_$LT$keep_recent..KeepRecent$u20$as$u20$larder_guest..policy..Policy$GT$8evaluate17hd28ac366b21280abE)
                (func $_ZN4core5slice4sort6stable5drift4sort17h4f223e9f3d556076E)
                (func $_ZN66_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..ops..drop..Drop$GT$4drop17hd28ac366b21280abE)
                (func $_ZN44_$LT$$RF$T$u20$as$u20$core..fmt..Display$GT$3fmt17hd28ac366b21280abE)
                (func $_RNvNtCsgXGp5Oqx2Ny_4core3str19slice_error_fail_rt)
                (func $_ZN12larder_guest9component8bindings6larder5image6images6select17h26cd5c1ab826c2e1E)
                (func (export "f")))"#,
        )
        .unwrap();
        let short = with_known_names(&module).unwrap();
        let printed = names(&short);
        assert_eq!(
            printed,
            [
                (0, "cabi_realloc".to_owned()),
                (1, "keep_recent::decide".to_owned()),
                (2, "<keep_recent::KeepRecent as larder_guest::policy::Policy>::evaluate".to_owned()),
                (7, "larder::image::images::select".to_owned()),
            ]
        );
    }

    fn names(module: &[u8]) -> Vec<(u32, String)> {
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            let Payload::CustomSection(section) = payload.unwrap() else { continue };
            let KnownCustom::Name(subsections) = section.as_known() else { continue };
            for subsection in subsections {
                let Name::Function(functions) = subsection.unwrap() else { continue };
                names.extend(functions.into_iter().map(|function| {
                    let function = function.unwrap();
                    (function.index, function.name.to_owned())
                }));
            }
        }
        names
    }
}
