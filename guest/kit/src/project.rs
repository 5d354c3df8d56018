//! A policy's directory, and making a component of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{KitError, Language, PolicyName, Tools, build, component, files};

/// Directories that hold no sources, wherever they are.
const IGNORED: [&str; 2] = ["__pycache__", "node_modules"];

/// Directories of a project that hold no sources.
const IGNORED_AT_TOP: [&str; 3] = ["build", "scenarios", "target"];

/// The file by which a directory is a policy's.
pub(crate) const MANIFEST: &str = "policy.toml";

/// A policy's directory: one with a `policy.toml`.
#[derive(Debug, Clone)]
pub struct Project {
    directory: PathBuf,
    work: PathBuf,
    manifest: Manifest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: PolicyName,
    language: Language,
}

/// A component that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Project {
    /// Opens the policy in this directory.
    ///
    /// # Errors
    /// [`KitError::NoManifest`] without a `policy.toml`, [`KitError::BadManifest`] where that says anything but name
    /// and language, [`KitError::Io`].
    pub fn open(directory: &Path) -> Result<Self, KitError> {
        if !directory.join(MANIFEST).exists() {
            return Err(KitError::NoManifest { directory: files::absolute(directory)? });
        }
        // Compilers name files by such paths: without links and without `..`.
        let directory = directory.canonicalize().map_err(KitError::io("find", directory))?;
        let path = directory.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(KitError::io("read", &path))?;
        let manifest = toml::from_str(&text).map_err(|error| KitError::BadManifest {
            path,
            message: error.to_string().trim_end().to_owned(),
        })?;
        Ok(Self { work: directory.join("build"), directory, manifest })
    }

    /// Keeps everything between source and component in another directory than `build/`.
    #[must_use]
    pub fn in_work_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.work = path.into();
        self
    }

    /// Returns its name.
    pub fn name(&self) -> &PolicyName {
        &self.manifest.name
    }

    /// Returns its language.
    pub fn language(&self) -> Language {
        self.manifest.language
    }

    /// Returns its directory: an absolute path without links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns where its component is written by default: `NAME.wasm` in its directory.
    pub fn default_output(&self) -> PathBuf {
        self.directory.join(format!("{}.wasm", self.name()))
    }

    /// Builds it. What takes long is told to `progress`, a line for each step, and so is what a compiler warns of.
    ///
    /// The file at `output` is replaced whole, and left alone where the component is the same as before. Components
    /// from JavaScript and Python differ byte for byte from build to build.
    ///
    /// # Errors
    /// [`KitError::MissingProgram`] names what to install, [`KitError::Command`] has what the compiler wrote,
    /// [`KitError::MissingSource`], [`KitError::BadContract`], [`KitError::NotAPolicy`], [`KitError::Io`].
    pub fn build(
        &self,
        tools: &Tools,
        output: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Built, KitError> {
        let work = files::absolute(&self.work)?;
        files::make_directory(&work)?;
        let component = build::component(self, &work, tools, progress)?;
        component::check(&component)?;
        files::write(output, &component)?;
        Ok(Built { path: output.to_owned(), bytes: component.len() as u64 })
    }

    /// A digest of everything that goes into the component: sources, contract, tools, and how they are used.
    ///
    /// Where it is the same as when a component was built, there is no need to build it again. For Rust, Cargo knows
    /// that better: a policy in Rust depends on crates elsewhere.
    ///
    /// # Errors
    /// [`KitError::Io`], and [`KitError::MissingProgram`] where the language has no compiler here.
    pub fn fingerprint(&self) -> Result<String, KitError> {
        let mut digest = Sha256::new();
        let mut add = |name: &str, bytes: &[u8]| {
            for part in [name.as_bytes(), bytes] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        };
        add("kit", env!("CARGO_PKG_VERSION").as_bytes());
        for (name, input) in build::inputs(self.language()) {
            add(&name, input.as_bytes());
        }
        if !self.directory.join("wit").is_dir() {
            files::CONTRACT.iter().for_each(|file| add(file.path, file.text.as_bytes()));
        }
        for path in self.sources()? {
            let bytes = fs::read(&path).map_err(KitError::io("read", &path))?;
            let name = path.strip_prefix(&self.directory).unwrap_or(&path);
            add(&name.to_string_lossy(), &bytes);
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The directory of the contract that it is built against: its own `wit/`, or else the kit's, written to `work`.
    pub(crate) fn contract(&self, work: &Path) -> Result<PathBuf, KitError> {
        let own = self.directory.join("wit");
        if own.is_dir() {
            return Ok(own);
        }
        let written = work.join("wit");
        files::write_all(&written, files::CONTRACT)?;
        Ok(written)
    }

    /// Returns every file that can matter to a build, sorted: all but what is built or installed, what is hidden, and
    /// what only people and tests read. Links to directories are not followed.
    pub(crate) fn sources(&self) -> Result<Vec<PathBuf>, KitError> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory).map_err(KitError::io("read", &directory))?;
            for entry in entries {
                let path = entry.map_err(KitError::io("read", &directory))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let is_top = directory == self.directory;
                if name.starts_with('.')
                    || IGNORED.contains(&name.as_str())
                    || (is_top && IGNORED_AT_TOP.contains(&name.as_str()))
                {
                    continue;
                }
                if path.is_dir() {
                    if !path.is_symlink() {
                        directories.push(path);
                    }
                } else if path.is_file() && !(name.ends_with(".md") || name.ends_with(".wasm")) {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(manifest: &str) -> Result<Project, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(MANIFEST), manifest).unwrap();
        let place = directory.path().to_string_lossy().into_owned();
        Project::open(directory.path()).map_err(|error| error.to_string().replace(&place, "DIR"))
    }

    /// A directory is a policy's by its `policy.toml`, which says name and language and nothing else.
    #[test]
    fn manifests() {
        let project = opened("name = \"demo\"\nlanguage = \"python\"\n").unwrap();
        assert_eq!((project.name().as_str(), project.language()), ("demo", Language::Python));
        assert!(project.default_output().ends_with("demo.wasm"));
        for (manifest, expected) in [
            ("name = \"demo\"\n", "missing field `language`"),
            ("name = \"Demo\"\nlanguage = \"c\"\n", "`Demo` is not a name for a policy"),
            ("name = \"demo\"\nlanguage = \"perl\"\n", "`perl` is not a language"),
            ("name = \"demo\"\nlanguage = \"c\"\nflags = \"-O3\"\n", "unknown field `flags`"),
        ] {
            let error = opened(manifest).unwrap_err();
            assert!(error.starts_with("`DIR/policy.toml`: ") && error.contains(expected), "{error}");
        }
        let missing = Project::open(Path::new("/nonexistent")).unwrap_err().to_string();
        assert_eq!(
            missing,
            "`/nonexistent` has no `policy.toml`, so it is not the directory of a policy: `larder policy new` makes one"
        );
    }

    /// A directory is found whichever way it is named, and compilers get the path that they name files by.
    #[test]
    fn names_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        files::write(&place.join(MANIFEST), b"name = \"demo\"\nlanguage = \"rust\"\n").unwrap();
        fs::create_dir(place.join("src")).unwrap();
        std::os::unix::fs::symlink(&place, place.join("link")).unwrap();
        for name in ["src/..", "link", "link/src/../."] {
            assert_eq!(Project::open(&place.join(name)).unwrap().directory(), place, "{name}");
        }
    }

    /// The fingerprint changes with a source and with the contract, and not with what no build reads.
    #[test]
    fn fingerprints() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |path: &str, text: &str| files::write(&directory.path().join(path), text.as_bytes()).unwrap();
        let fingerprint = || Project::open(directory.path()).unwrap().fingerprint().unwrap();
        write(MANIFEST, "name = \"demo\"\nlanguage = \"javascript\"\n");
        write("policy.js", "1");
        let first = fingerprint();
        for path in [
            "README.md",
            "scenarios/a.toml",
            "build/x.js",
            "demo.wasm",
            ".gitignore",
            "node_modules/left-pad/index.js",
            "lib/__pycache__/x.pyc",
        ] {
            write(path, "text");
        }
        std::os::unix::fs::symlink("..", directory.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("broken")).unwrap();
        assert_eq!(fingerprint(), first);
        let mut seen = vec![first];
        for (path, text) in [("policy.js", "2"), ("lib/more.js", "1"), ("wit/world.wit", "package a:b;")] {
            write(path, text);
            assert!(!seen.contains(&fingerprint()), "{path}");
            seen.push(fingerprint());
        }
    }
}
