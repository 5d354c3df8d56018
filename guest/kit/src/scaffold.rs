//! A new policy's directory: small, honest, and passing its scenarios as soon as it is built.
//!
//! The policy is the same in each language and decides the same. What stands in several of them is kept once: the
//! scenarios, and the JSON reader of C, which is that of the policy `keep-recent` in C.

use std::fs;
use std::io;
use std::path::Path;

use crate::files::{self, File};
use crate::{KitError, Language, PolicyName};

/// The files that a C policy reads its config with.
const C_READER: [File; 4] = [
    File { path: "json.c", text: include_str!("../../policies/c/json.c") },
    File { path: "json.h", text: include_str!("../../policies/c/json.h") },
    File { path: "text.c", text: include_str!("../../policies/c/text.c") },
    File { path: "text.h", text: include_str!("../../policies/c/text.h") },
];

/// `larder-guest` is in no registry: a policy in Rust has it beside it, as it stands.
const SDK_MANIFEST: File = File { path: "Cargo.toml", text: include_str!("../../sdk/Cargo.toml") };

/// Writes a new policy of this name in this language to a directory, which is made where it does not exist.
///
/// # Errors
/// [`KitError::NotEmpty`] where something is in the directory already, [`KitError::Io`].
pub fn scaffold(directory: &Path, name: &PolicyName, language: Language) -> Result<(), KitError> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(KitError::NotEmpty { directory: directory.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(KitError::io("read", directory)(error)),
    }
    for file in files::COMMON.iter().chain(sources(language)) {
        let text = filled(file.text, name, language);
        files::write(&directory.join(file.path), text.as_bytes())?;
    }
    files::write_all(&directory.join("wit"), files::CONTRACT)?;
    match language {
        Language::Rust => {
            let sdk = directory.join("vendor/larder-guest");
            files::write_all(&sdk, &[SDK_MANIFEST])?;
            files::write_all(&sdk.join("src"), files::SDK_SOURCES)
        }
        Language::C => files::write_all(directory, &C_READER),
        Language::JavaScript | Language::Python | Language::Go => Ok(()),
    }
}

fn sources(language: Language) -> &'static [File] {
    match language {
        Language::Rust => files::RUST,
        Language::C => files::C,
        Language::JavaScript => files::JAVASCRIPT,
        Language::Python => files::PYTHON,
        Language::Go => files::GO,
    }
}

/// A template with its places filled. A name can stand in every one of them as it is.
fn filled(template: &str, name: &PolicyName, language: Language) -> String {
    let (title, files) = match language {
        Language::Rust => (
            "Rust",
            "| `src/lib.rs` | the policy |\n\
             | `config.schema.json` | what its config may be: `LARDER_WRITE_CONFIG_SCHEMA=1 cargo test` writes it |\n\
             | `tests/` | its decisions natively: `cargo test` |\n\
             | `vendor/larder-guest/` | the library it builds on |",
        ),
        Language::C => (
            "C",
            "| `policy.c` | the policy |\n\
             | `json.c`, `text.c` | a reader of the config, and texts that grow |",
        ),
        Language::JavaScript => {
            ("JavaScript", "| `policy.js` | the policy; what it imports from beside it is built in |")
        }
        Language::Python => {
            ("Python", "| `policy.py` | the policy; what it imports from beside it is built in |")
        }
        Language::Go => ("Go", "| `policy.go`, `go.mod` | the policy |"),
    };
    template
        .replace("@NAME@", name.as_str())
        .replace("@LANGUAGE@", language.as_str())
        .replace("@TITLE@", title)
        .replace("@FILES@", files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Project;

    fn demo() -> PolicyName {
        "demo".parse().unwrap()
    }

    /// What is written is a project of that name and language, with every place filled.
    #[test]
    fn every_place_is_filled() {
        for language in Language::ALL {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path().join("new");
            scaffold(&place, &demo(), language).unwrap();
            let project = Project::open(&place).unwrap();
            assert_eq!((project.name().as_str(), project.language()), ("demo", language));
            let readme = place.join("README.md");
            let grant = place.join("grant.toml");
            let scenarios = place.join("scenarios/decisions.toml");
            for path in project.sources().unwrap().into_iter().chain([readme, scenarios, grant]) {
                let text = fs::read_to_string(&path).unwrap();
                let left = ["@NAME@", "@LANGUAGE@", "@TITLE@", "@FILES@"]
                    .iter()
                    .find(|place| text.contains(**place));
                assert_eq!(left, None, "{}", path.display());
            }
        }
    }

    /// A directory with anything in it is left as it is; an empty one is as good as none.
    #[test]
    fn nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        scaffold(directory.path(), &demo(), Language::Go).unwrap();
        let error = scaffold(directory.path(), &demo(), Language::C).unwrap_err();
        assert!(matches!(error, KitError::NotEmpty { .. }), "{error}");
        assert!(!directory.path().join("policy.c").exists());
    }

    /// The SDK's manifest takes versions and settings from its workspace: the scaffold's says the same as this one's.
    #[test]
    fn the_workspace_of_a_scaffold_is_that_of_the_sdk() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let ours = table(include_str!("../../../Cargo.toml"));
        let theirs = table(include_str!("../scaffolds/rust/Cargo.toml"));
        let sdk = table(SDK_MANIFEST.text);
        let of = |manifest: &toml::Table, section: &str| manifest["workspace"][section].clone();
        for key in ["version", "edition", "license", "publish"] {
            assert_eq!(of(&theirs, "package")[key], of(&ours, "package")[key], "{key}");
        }
        let everywhere = [&sdk["dependencies"], &sdk["dev-dependencies"]];
        let targets = sdk["target"].as_table().unwrap().values().map(|target| &target["dependencies"]);
        let tables = everywhere.into_iter().chain(targets).map(|table| table.as_table().unwrap());
        for name in tables.flat_map(|table| table.keys()) {
            assert_eq!(of(&theirs, "dependencies")[name], of(&ours, "dependencies")[name], "{name}");
        }
        assert_eq!(theirs["profile"]["policy"], ours["profile"]["policy"]);
    }
}
