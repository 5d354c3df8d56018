//! Podman and buildah with a store of their own.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::judge::{has_tools, tool};

/// A store of images that podman and buildah share. Needs no network and nothing of the machine's configuration.
#[derive(Debug)]
pub struct ImageStore {
    directory: TempDir,
}

impl ImageStore {
    /// Makes an empty store, where both programs are installed and this is root. Prints that the test is skipped if not.
    pub fn find() -> Option<Self> {
        let may = has_tools(&["podman", "buildah"]) && rustix::process::geteuid().is_root();
        may.then(|| Self { directory: tempfile::tempdir().expect("a directory") })
    }

    /// Returns a path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `podman` or `buildah` on the store, and returns what it says, without the last line feed.
    ///
    /// # Panics
    /// Panics if the program fails, because the test cannot continue.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (root, run) = (self.path("store"), self.path("run"));
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        // Copies of directories, which need no support of the kernel.
        let own =
            ["--root", &text(&root), "--runroot", &text(&run), "--storage-driver", "vfs"].map(str::to_owned);
        tool(program, own.into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())))
            .trim()
            .to_owned()
    }

    /// Makes a working copy of an image, or of nothing for `scratch`. Returns its name and its directory.
    #[track_caller]
    pub fn working(&self, image: &str) -> (String, PathBuf) {
        let name = self.run("buildah", &["from", "--pull-never", image]);
        let directory = self.run("buildah", &["mount", &name]);
        (name, directory.into())
    }
}
