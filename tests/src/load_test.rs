//! The common parts of the tests of loading.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use larder::ingest::{LayerOutcome, Progress, ProgressEvent};
use larder::{Image, ImageHandle, MicrosandboxResult};
use larder_erofs::reader::{self, Inode};
use larder_erofs::{FileKind, Metadata};
use tempfile::TempDir;

use crate::archive::{Files, TestImage, digest, docker_files, tar_of};
use crate::home::{Home, run};

/// A home, and a directory for the inputs of loads.
#[derive(Debug)]
pub struct LoadTest {
    /// The home.
    pub home: Home,
    directory: TempDir,
}

impl LoadTest {
    /// Makes a new home.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        Self { home: Home::made(), directory: tempfile::tempdir().expect("a directory") }
    }

    /// Returns a path beside the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes these files as an archive.
    pub fn archive(&self, files: &Files) -> PathBuf {
        self.file("archive.tar", &tar_of(files))
    }

    /// Writes a file with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).expect("a file");
        self.path(name)
    }

    /// Loads the archive or layout at a path.
    pub fn load(&self, input: &Path, tags: &[&str]) -> MicrosandboxResult<Vec<ImageHandle>> {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        run(async { Image::load_local(&self.home.open().await, input, tags).await })
    }

    /// Returns the error for an input that cannot be loaded, after checking that the cache is empty.
    pub fn refusal(&self, input: &Path, tags: &[&str]) -> String {
        let error = self.load(input, tags).expect_err("a refusal");
        assert_eq!(contents(&self.home), BTreeMap::new(), "left by: {error}");
        assert_eq!(self.home.count("SELECT count(*) FROM image_ref"), 0);
        error.to_string().replace(&self.directory.path().display().to_string(), "DIR")
    }

    /// Returns the error for an archive of these files that cannot be loaded.
    pub fn refused_archive(&self, files: &Files) -> String {
        self.refusal(&self.archive(files), &[])
    }

    /// Returns the error for an image with only this layer that cannot be loaded.
    pub fn refused_layer(&self, layer: Vec<u8>) -> String {
        let diff_id = digest(&layer);
        let files = docker_files(&[TestImage::new(&["acme/app:1"], vec![layer])]);
        self.refused_archive(&files).replace(&diff_id, "LAYER")
    }
}

/// Returns every file of the cache except locks, with its content.
pub fn contents(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for room in ["layers", "fsmeta", "vmdk", "manifests", "tmp"] {
        for name in home.files(room) {
            let content = fs::read(home.cache().join(room).join(&name)).expect("a file");
            contents.insert(format!("{room}/{name}"), content);
        }
    }
    contents
}

/// Returns the paths of an image that a sandbox sees, with the content of each file and the target of each link.
pub fn tree(home: &Home, manifest: &str, diff_ids: &[String]) -> BTreeMap<String, String> {
    let image = joined(home, manifest, diff_ids);
    reader::check(&image).expect("a sound image");
    let text = |inode: &Inode| match inode.kind() {
        FileKind::Regular | FileKind::Symlink => String::from_utf8(content(&image, inode)).expect("text"),
        kind => format!("{kind:?}"),
    };
    image
        .walk()
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.path.to_string(), text(&entry.inode)))
        .collect()
}

/// An entry of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The kind.
    pub kind: FileKind,
    /// The number of names. Absent for a directory, since file systems count these differently.
    pub links: u32,
    /// The owner, time and permissions.
    pub metadata: Metadata,
    /// The digest of the content, or the target of a link.
    pub content: String,
}

/// Returns the same paths as [`tree`], with everything that the image states about each. Does not check that the image
/// is valid: images of microsandbox are not, since it counts the links of directories differently.
pub fn entries(home: &Home, manifest: &str, diff_ids: &[String]) -> BTreeMap<String, Seen> {
    let image = joined(home, manifest, diff_ids);
    let seen = |inode: &Inode| Seen {
        kind: inode.kind(),
        links: if inode.kind() == FileKind::Directory { 0 } else { inode.nlink() },
        metadata: image.metadata(inode).expect("metadata"),
        content: match inode.kind() {
            FileKind::Regular => digest(&content(&image, inode)),
            FileKind::Symlink => content(&image, inode).escape_ascii().to_string(),
            _ => format!("{:?}", inode.device_number()),
        },
    };
    image
        .walk()
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.path.to_string(), seen(&entry.inode)))
        .collect()
}

/// Returns the image that the layers form together.
fn joined(home: &Home, manifest: &str, diff_ids: &[String]) -> reader::Image<File> {
    let open = |room: &str, digest: &str| {
        let name = format!("{}.erofs", digest.replace(':', "_"));
        File::open(home.cache().join(room).join(name)).expect("an artifact")
    };
    let layers = diff_ids.iter().map(|diff_id| open("layers", diff_id)).collect();
    reader::Image::open_with_devices(open("fsmeta", manifest), layers).expect("an image")
}

/// Returns the bytes of a file, or the target of a link.
fn content(image: &reader::Image<File>, inode: &Inode) -> Vec<u8> {
    if inode.kind() == FileKind::Symlink {
        return image.link_target(inode).expect("a target");
    }
    let mut bytes = Vec::new();
    image.data(inode).expect("a file").read_to_end(&mut bytes).expect("its content");
    bytes
}

/// The outcomes of the layers of a load, in the order in which they were done.
#[derive(Debug, Default)]
pub struct Outcomes(pub Mutex<Vec<LayerOutcome>>);

impl Progress for Outcomes {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::LayerDone { outcome, .. } = event {
            self.0.lock().expect("a list").push(outcome);
        }
    }
}
