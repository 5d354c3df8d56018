//! The last steps to a component: from a core module, and what is looked at in every one.

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::KitError;

/// What the names of everything begin with that a policy may import.
const PACKAGE: &str = "larder:image/";

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
    let mut kept = Vec::with_capacity(module.len());
    // Sections follow each other without a gap, so each begins, with its header, where the one before it ended.
    let mut begins = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(KitError::not_a_policy)?;
        let (ends, keeps) = match &payload {
            Payload::Version { range, .. } => (range.end, true),
            Payload::CustomSection(section) => (section.range().end, !section.name().starts_with(".debug_")),
            other => match other.as_section() {
                Some((_, range)) => (range.end, true),
                None => continue,
            },
        };
        if keeps {
            kept.extend_from_slice(&module[begins..ends]);
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
            let known = import.module.starts_with(PACKAGE) || import.module.starts_with(['[', '$']);
            if !known && adapted != Some(import.module) {
                return Err(foreign(&format!("{}.{}", import.module, import.name)));
            }
        }
    }
    Ok(())
}

fn foreign(import: &str) -> KitError {
    KitError::NotAPolicy {
        message: format!(
            "it imports `{import}`, and a policy has nothing but `larder:image`; `docs/languages.md` says how its \
             language builds without it"
        ),
    }
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
    }
    // Some languages export more, such as `init`: that is harmless.
    if world.exports.keys().any(|key| resolve.name_world_key(key).starts_with("larder:image/policy@")) {
        Ok(())
    } else {
        refused("it exports no `larder:image/policy`".to_owned())
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
             `larder:image`; `docs/languages.md` says how its language builds without it"
        );
        assert_eq!(
            checked("(component)"),
            "what was built is not a policy: it exports no `larder:image/policy`"
        );
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
                    (type (func)) (import "larder:image/images@0.1.0" "list" (func (type 0)))
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
}
