//! The contract, and the bindings that are generated from it for the languages that need some.

use std::fmt::Display;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::{KitError, files};

/// The world that policies are built for.
pub(crate) const WORLD: &str = "image-policy";

/// Writes the bindings that a generator makes of the contract in `wit`, below a directory.
pub(crate) fn generate(
    mut generator: Box<dyn WorldGenerator>,
    wit: &Path,
    directory: &Path,
) -> Result<(), KitError> {
    let (mut resolve, world) = read(wit)?;
    let mut generated = Files::default();
    generator.generate(&mut resolve, world, &mut generated).map_err(|error| bad(wit, &error))?;
    generated.iter().try_for_each(|(name, bytes)| files::write(&directory.join(name), bytes))
}

/// Tells in a core module which contract its bindings were made of, where the generator does not do that itself.
pub(crate) fn embed(module: &mut Vec<u8>, wit: &Path) -> Result<(), KitError> {
    let (resolve, world) = read(wit)?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).map_err(|error| bad(wit, &error))
}

fn read(wit: &Path) -> Result<(Resolve, WorldId), KitError> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(|error| bad(wit, &error))?;
    let world = resolve.select_world(&[package], Some(WORLD)).map_err(|error| bad(wit, &error))?;
    Ok((resolve, world))
}

fn bad(wit: &Path, error: &impl Display) -> KitError {
    // With its causes, in one line.
    KitError::BadContract { path: wit.to_owned(), message: format!("{error:#}") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The SDK for Rust has the bindings that its generator makes of the contract.
    #[test]
    fn the_sdk_has_the_bindings_of_the_contract() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let options = wit_bindgen_rust::Opts {
            format: true,
            // Lists and texts that a policy hands over are not copied first.
            ownership: wit_bindgen_rust::Ownership::Borrowing { duplicate_if_necessary: false },
            pub_export_macro: true,
            ..wit_bindgen_rust::Opts::default()
        };
        let directory = tempfile::tempdir().unwrap();
        generate(Box::new(options.build()), &here.join("../../wit"), directory.path()).unwrap();
        let generated = fs::read_to_string(directory.path().join("image_policy.rs")).unwrap();
        let kept = here.join("../sdk/src/component/bindings.rs");
        if std::env::var_os("LARDER_WRITE_BINDINGS").is_some() {
            fs::write(&kept, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(&kept).is_ok_and(|kept| kept == generated),
            "`{}` is out of date: `LARDER_WRITE_BINDINGS=1 cargo test -p larder-kit bindings` writes it",
            kept.display()
        );
    }
}
