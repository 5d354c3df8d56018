//! What tests of loading share.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use larder::{Image, ImageHandle, MicrosandboxResult};
use larder_erofs::reader::{self, Inode};
use larder_erofs::{FileKind, Metadata};
use tempfile::TempDir;

use crate::archive::{Files, TestImage, digest, docker_files, tar_of};
use crate::home::{Home, run};

/// A home, and a directory for what is loaded into it.
#[derive(Debug)]
pub struct LoadTest {
    /// The home.
    pub home: Home,
    directory: TempDir,
}

impl LoadTest {
    /// A new home.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        Self { home: Home::made(), directory: tempfile::tempdir().expect("a directory") }
    }

    /// A path beside the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// These files as an archive.
    pub fn archive(&self, files: &Files) -> PathBuf {
        self.file("archive.tar", &tar_of(files))
    }

    /// A file with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).expect("a file");
        self.path(name)
    }

    /// Loads what lies there.
    pub fn load(&self, input: &Path, tags: &[&str]) -> MicrosandboxResult<Vec<ImageHandle>> {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        run(async { Image::load_local(&self.home.open().await, input, tags).await })
    }

    /// Why something cannot be loaded, after a look at the cache, which has nothing then.
    pub fn refusal(&self, input: &Path, tags: &[&str]) -> String {
        let error = self.load(input, tags).expect_err("a refusal");
        assert_eq!(contents(&self.home), BTreeMap::new(), "left by: {error}");
        assert_eq!(self.home.count("SELECT count(*) FROM image_ref"), 0);
        error.to_string().replace(&self.directory.path().display().to_string(), "DIR")
    }

    /// Why an archive of these files cannot be loaded.
    pub fn refused_archive(&self, files: &Files) -> String {
        self.refusal(&self.archive(files), &[])
    }

    /// Why an image with this layer alone cannot be loaded.
    pub fn refused_layer(&self, layer: Vec<u8>) -> String {
        let diff_id = digest(&layer);
        let files = docker_files(&[TestImage::new(&["acme/app:1"], vec![layer])]);
        self.refused_archive(&files).replace(&diff_id, "LAYER")
    }
}

/// Every file of the cache but locks, with its content.
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

/// What a sandbox sees of an image: every path, with its content where it is a file and its target where it is a link.
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
    /// What it is.
    pub kind: FileKind,
    /// How many names it has; nothing of a directory, since file systems count these differently.
    pub links: u32,
    /// Whose it is, from when, and who may do what.
    pub metadata: Metadata,
    /// The digest of what it holds, or where it leads to.
    pub content: String,
}

/// As [`tree`], with everything that the image says of each path. Whether it is sound nobody asks here: microsandbox's
/// images are not, since it counts the links of directories otherwise.
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

/// The image that layers make together.
fn joined(home: &Home, manifest: &str, diff_ids: &[String]) -> reader::Image<File> {
    let open = |room: &str, digest: &str| {
        let name = format!("{}.erofs", digest.replace(':', "_"));
        File::open(home.cache().join(room).join(name)).expect("an artifact")
    };
    let layers = diff_ids.iter().map(|diff_id| open("layers", diff_id)).collect();
    reader::Image::open_with_devices(open("fsmeta", manifest), layers).expect("an image")
}

/// The bytes of a file, or the target of a link.
fn content(image: &reader::Image<File>, inode: &Inode) -> Vec<u8> {
    if inode.kind() == FileKind::Symlink {
        return image.link_target(inode).expect("a target");
    }
    let mut bytes = Vec::new();
    image.data(inode).expect("a file").read_to_end(&mut bytes).expect("its content");
    bytes
}
