//! What a component claims to be: the names of its imports and exports, read without compiling anything.

use serde::Serialize;
use wasmparser::{BinaryReaderError, Parser, Payload};

use super::load;
use crate::policy::error::{PolicyError, short_name};

/// The package of the contract.
const PACKAGE: &str = "larder:image/";

/// The outermost imports and exports of a component, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Surface {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

impl Surface {
    /// Reads the sections of a component; of the modules and components in it, where they end.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut surface = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        surface.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        surface.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(surface)
    }
}

/// The name of an interface of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    /// Such as `images`.
    pub(crate) interface: &'a str,
    /// Such as `0.2.0`; empty where the name has none.
    pub(crate) version: &'a str,
}

impl<'a> Interface<'a> {
    /// Splits a name of the contract's package; none of another package.
    pub(crate) fn of_contract(name: &'a str) -> Option<Self> {
        let rest = name.strip_prefix(PACKAGE)?;
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        Some(Self { interface, version })
    }
}

/// A description of some bytes, which shows why they are no policy.
///
/// [`Policy::load`](crate::policy::Policy::load) decides whether a host runs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ComponentReport {
    /// The kind of the bytes, such as `a component` or `a core WebAssembly module`.
    pub kind: String,
    /// Their number.
    pub size_bytes: u64,
    /// The imports of the component, as WIT names them, in its order; empty if it is none.
    pub imports: Vec<String>,
    /// Its exports.
    pub exports: Vec<String>,
    /// The version of `larder:image` that it was built for: that of the policy that it exports, or of what it imports.
    pub wit_version: Option<String>,
}

impl ComponentReport {
    /// Describes bytes. Compiles nothing.
    pub fn of(bytes: &[u8]) -> Self {
        let read = || {
            load::check_header(bytes)?;
            Surface::read(bytes).map_err(|error| load::unreadable(&error))
        };
        let (kind, surface) = match read() {
            Ok(surface) => ("a component".to_owned(), surface),
            Err(PolicyError::NotAComponent { found, .. }) => (found, Surface::default()),
            // Reading has no other error.
            Err(error) => (error.to_string(), Surface::default()),
        };
        let contract = |names: &[String]| {
            names.iter().find_map(|name| Interface::of_contract(name)).map(|name| short_name(name.version))
        };
        let plain = |names: &[String]| names.iter().map(|name| short_name(name)).collect();
        Self {
            kind,
            size_bytes: bytes.len() as u64,
            wit_version: contract(&surface.exports).or_else(|| contract(&surface.imports)),
            imports: plain(&surface.imports),
            exports: plain(&surface.exports),
        }
    }
}
