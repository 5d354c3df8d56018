//! A new policy's directory, which passes its scenarios as soon as it is built, and the parts of it that are the kit's.
//!
//! The policy is the same in each language and decides the same. A directory has copies of the contract, and, for Rust, of
//! the SDK, which is in no registry: [`Project::update`] brings them up to date.
//!
//! A template has the name that it gets, or that and `.in` where a file of its own name would mean something here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, File};
use crate::{KitError, Language, PolicyName, Project};

/// The manifest of the SDK's copy: its own, with everything that it takes from this workspace filled in.
const SDK_MANIFEST: &str = include_str!("../scaffolds/larder-guest.toml");

/// The directory of the contract in a project.
const CONTRACT: &str = "wit";

/// The directory of the SDK in a project in Rust.
const SDK: &str = "vendor/larder-guest";

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
        let path = file.path.strip_suffix(".in").unwrap_or(file.path);
        let mut text = filled(file.text, name, language);
        if path == "Cargo.lock" {
            text = sorted(&text);
        }
        files::write(&directory.join(path), text.as_bytes())?;
    }
    kits(language).iter().try_for_each(|(path, text)| files::write(&directory.join(path), text.as_bytes()))
}

impl Project {
    /// Brings the contract, and for Rust the SDK, up to date with this kit. What was changed in them is lost. Returns the
    /// files that were written or removed, relative to the directory of the policy and sorted.
    ///
    /// A project that has no contract of its own is built against the kit's, and gets none.
    ///
    /// # Errors
    /// [`KitError::Io`].
    pub fn update(&self) -> Result<Vec<PathBuf>, KitError> {
        let mut changed = Vec::new();
        let kits = kits(self.language());
        for part in [CONTRACT, SDK] {
            let place = self.directory().join(part);
            if !place.is_dir() {
                continue;
            }
            for (path, text) in kits.iter().filter(|(path, _)| path.starts_with(part)) {
                let target = self.directory().join(path);
                if fs::read(&target).is_ok_and(|before| before == text.as_bytes()) {
                    continue;
                }
                files::write(&target, text.as_bytes())?;
                changed.push(path.clone());
            }
            for path in files::below(&place)? {
                let relative = path.strip_prefix(self.directory()).unwrap_or(&path).to_owned();
                if !kits.iter().any(|(kit, _)| *kit == relative) {
                    fs::remove_file(&path).map_err(KitError::io("remove", &path))?;
                    changed.push(relative);
                }
            }
        }
        changed.sort();
        Ok(changed)
    }
}

/// Returns the files of a project that are the kit's: the contract, and for Rust the SDK.
fn kits(language: Language) -> Vec<(PathBuf, &'static str)> {
    let at = |place: &str, file: &File| (Path::new(place).join(file.path), file.text);
    let mut kits: Vec<_> = files::CONTRACT.iter().map(|file| at(CONTRACT, file)).collect();
    if language == Language::Rust {
        kits.push((Path::new(SDK).join("Cargo.toml"), SDK_MANIFEST));
        kits.extend(files::SDK_SOURCES.iter().map(|file| at(&format!("{SDK}/src"), file)));
    }
    kits
}

/// Returns a `Cargo.lock` with its packages in the order in which Cargo writes them: a template has a place for a name.
fn sorted(lock: &str) -> String {
    let mut packages = lock.split("\n[[package]]\n");
    let head = packages.next().unwrap_or_default();
    let mut packages: Vec<&str> = packages.map(str::trim_end).collect();
    packages.sort_unstable();
    let packages = packages.into_iter().map(|package| format!("\n[[package]]\n{package}\n"));
    head.to_owned() + &packages.collect::<String>()
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

/// Fills the places of a template. A name can be in every one of them as it is.
fn filled(template: &str, name: &PolicyName, language: Language) -> String {
    let files = match language {
        Language::Rust => {
            "| `src/lib.rs` | the policy |\n\
             | `config.schema.json` | what its config may be: `LARDER_WRITE_CONFIG_SCHEMA=1 cargo test` writes it |\n\
             | `tests/` | its decisions natively: `cargo test` |\n\
             | `vendor/larder-guest/` | the library that it builds on: `larder policy update` brings it up to date |"
        }
        Language::C => {
            "| `policy.c` | the policy |\n\
             | `json.c`, `text.c` | a reader of the config, and texts that grow |"
        }
        Language::JavaScript => "| `policy.js` | the policy; what it imports from beside it is built in |",
        Language::Python => "| `policy.py` | the policy; what it imports from beside it is built in |",
        Language::Go => "| `policy.go`, `go.mod` | the policy |",
    };
    template
        .replace("@NAME@", name.as_str())
        .replace("@LANGUAGE@", language.as_str())
        .replace("@TITLE@", language.title())
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

    /// A new policy in Rust has a version of its own, no licence but its author's, and the versions of crates that this
    /// kit was tested with; its SDK has the manifest of the SDK here.
    #[test]
    fn manifests_of_rust() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let ours = table(include_str!("../../../Cargo.toml"));
        let theirs = table(&filled(include_str!("../scaffolds/rust/Cargo.toml.in"), &demo(), Language::Rust));
        let package = theirs["package"].as_table().unwrap();
        assert_eq!((package["name"].as_str(), package["version"].as_str()), (Some("demo"), Some("0.1.0")));
        assert!(!package.contains_key("license"));
        assert_eq!(theirs["profile"]["policy"], ours["profile"]["policy"]);
        let workspace = &ours["workspace"];
        for name in ["serde", "schemars"] {
            let used = theirs["dependencies"].get(name).or(theirs["dev-dependencies"].get(name));
            assert_eq!(used, Some(&workspace["dependencies"][name]), "{name}");
        }

        let mut sdk = table(include_str!("../../sdk/Cargo.toml"));
        // Nothing of the copy is tested or linted.
        sdk.remove("dev-dependencies");
        sdk.remove("lints");
        inherit(&mut sdk, "package", &workspace["package"]);
        inherit(&mut sdk, "dependencies", &workspace["dependencies"]);
        for (_, target) in sdk["target"].as_table_mut().unwrap() {
            inherit(target.as_table_mut().unwrap(), "dependencies", &workspace["dependencies"]);
        }
        assert_eq!(table(SDK_MANIFEST), sdk);
    }

    /// Fills in what a section takes from the workspace.
    fn inherit(manifest: &mut toml::Table, section: &str, workspace: &toml::Value) {
        for (key, value) in manifest[section].as_table_mut().unwrap() {
            if value.get("workspace").is_some() {
                *value = workspace[key].clone();
            }
        }
    }

    /// The lock of a new policy in Rust is whole, in Cargo's order whatever the name, and of the versions that everything
    /// here is tested with.
    #[test]
    fn the_lock_of_rust() {
        let ours = include_str!("../../../Cargo.lock");
        let packages = |lock: &str| -> Vec<String> {
            lock.split("\n[[package]]\n").skip(1).map(|package| package.trim_end().to_owned()).collect()
        };
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("new");
        scaffold(&place, &"serve".parse().unwrap(), Language::Rust).unwrap();
        let theirs = packages(&fs::read_to_string(place.join("Cargo.lock")).unwrap());
        assert!(theirs.is_sorted() && theirs.iter().any(|package| package.starts_with("name = \"serve\"\n")));
        let named = |package: &str| package.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
        let ours: Vec<_> = packages(ours).iter().map(|package| named(package)).collect();
        for package in theirs.iter().filter(|package| package.contains("\nsource = ")) {
            assert!(ours.contains(&named(package)), "{package}");
        }
    }

    /// What is the kit's is brought up to date, what is not goes from there, and nothing else is touched.
    #[test]
    fn updating() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("new");
        scaffold(&place, &demo(), Language::Rust).unwrap();
        let project = Project::open(&place).unwrap();
        assert_eq!(project.update().unwrap(), Vec::<PathBuf>::new());
        let write = |path: &str| files::write(&place.join(path), b"mine").unwrap();
        ["wit/world.wit", "vendor/larder-guest/src/gone.rs", "vendor/larder-guest/Cargo.toml"]
            .into_iter()
            .chain(["src/lib.rs", "README.md", "vendor/other/src/lib.rs"])
            .for_each(write);
        fs::remove_file(place.join("vendor/larder-guest/src/cache.rs")).unwrap();
        let changed = project.update().unwrap();
        assert_eq!(
            changed,
            [
                "vendor/larder-guest/Cargo.toml",
                "vendor/larder-guest/src/cache.rs",
                "vendor/larder-guest/src/gone.rs",
                "wit/world.wit",
            ]
            .map(PathBuf::from)
        );
        assert!(!place.join("vendor/larder-guest/src/gone.rs").exists());
        for kept in ["src/lib.rs", "README.md", "vendor/other/src/lib.rs"] {
            assert_eq!(fs::read(place.join(kept)).unwrap(), b"mine");
        }
        assert_eq!(project.update().unwrap(), Vec::<PathBuf>::new());

        fs::remove_dir_all(place.join("wit")).unwrap();
        assert_eq!(project.update().unwrap(), Vec::<PathBuf>::new());
    }
}
