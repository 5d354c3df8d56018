//! Images with everything that can be told apart, and archives of them.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use larder_tests::Home;
use larder_tests::archive::{Item, Packing, TestImage, docker_files, layer, layout_files, tar_of};
use serde_json::json;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// What all the images are called.
pub(crate) const REFERENCES: [&str; 4] = [
    "docker.io/acme/app:1",
    "docker.io/acme/app:latest",
    "docker.io/acme/everything:2",
    "registry.example:5000/team/bare:3",
];

/// Two tags of one image, its layers plain.
pub(crate) fn app() -> TestImage {
    let lower =
        layer(&[Item::Dir("etc"), Item::File("etc/motd", b"hello\n"), Item::File("etc/gone", b"gone\n")]);
    // Directories are described wherever they occur: where one is not, microsandbox makes up what it is.
    let upper =
        layer(&[Item::Dir("etc"), Item::File("etc/.wh.gone", b""), Item::File("etc/motd", b"other\n")]);
    let mut image = TestImage::new(&REFERENCES[..2], vec![lower, upper]);
    image.runtime = json!({
        "Env": ["PATH=/bin", "GREETING=gr\u{fc}n"], "Cmd": ["serve", "--all"], "Entrypoint": ["/init"],
        "WorkingDir": "/srv", "User": "1000:100", "StopSignal": "SIGINT",
        "Labels": { "org.example.team": "a b", "empty": "" },
        "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} },
    });
    image
}

/// An image whose layers have every kind of entry, and many.
pub(crate) fn everything() -> TestImage {
    TestImage::new(&REFERENCES[2..3], vec![every_kind(), changes()])
}

/// An image of the lower layer of [`app`] and one more, whose config says nothing.
pub(crate) fn bare() -> TestImage {
    let top = layer(&[Item::Dir("srv"), Item::File("srv/data", &[7; 5000])]);
    let mut image = TestImage::new(&REFERENCES[3..], vec![app().layers.swap_remove(0), top]);
    image.runtime = json!({});
    image
}

/// The images in archives: one of `docker save`, and layouts with layers in gzip and in zstd.
pub(crate) struct Archives {
    directory: TempDir,
    /// From the one that is loaded first on.
    pub(crate) paths: Vec<PathBuf>,
}

impl Archives {
    pub(crate) fn new() -> Self {
        let mut archives = Self { directory: tempfile::tempdir().expect("a directory"), paths: Vec::new() };
        let files = [
            ("app.tar", docker_files(&[app()])),
            ("everything.tar", layout_files(&[everything()], Packing::Gzip)),
            ("bare.tar", layout_files(&[bare()], Packing::Zstd)),
        ];
        for (name, files) in files {
            fs::write(archives.path(name), tar_of(&files)).expect("an archive");
            archives.paths.push(archives.path(name));
        }
        archives
    }

    /// A path beside the archives.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A sandbox that uses an image, as a row.
pub(crate) fn add_sandbox(home: &Home, reference: &str) {
    home.execute(&format!(
        "INSERT INTO sandbox (name, config, status) VALUES ('web', '{{}}', 'stopped');
         INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode)
         SELECT last_insert_rowid(), manifest_id, 'layered' FROM image_ref WHERE reference = '{reference}'"
    ));
}

/// A layer in the making.
struct Entries(Builder<Vec<u8>>);

impl Entries {
    fn add(&mut self, kind: EntryType, mode: u32, name: &str, content: &[u8]) {
        let mut header = self.header(kind, mode);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, Cursor::new(content)).expect("an entry");
    }

    fn link(&mut self, kind: EntryType, name: &str, target: &str) {
        let mut header = self.header(kind, 0o777);
        self.0.append_link(&mut header, name, target).expect("an entry");
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(65_534);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        header
    }
}

/// Files of all sizes, links, devices, long names, and a directory of many blocks.
fn every_kind() -> Vec<u8> {
    use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let mut entries = Entries(Builder::new(Vec::new()));
    for name in ["bin", "dev", "etc", "etc/old", "many", "opaque", "opaque/below"] {
        entries.add(Directory, 0o755, name, b"");
    }
    for (name, length) in [("etc/empty", 0), ("etc/one", 1), ("bin/block", 4096), ("bin/tool", 1_234_567)] {
        let content: Vec<u8> = (0..length).map(|at: u32| (at / 7) as u8).collect();
        entries.add(Regular, 0o4755, name, &content);
    }
    for number in 0..1500 {
        entries.add(Regular, 0o644, &format!("many/a name to fill a block with, {number}"), b"x");
    }
    entries.add(Regular, 0o600, &format!("etc/{}", "n".repeat(255)), b"a long name");
    entries.add(Regular, 0o644, &format!("etc/old/{}/file", ["deep"; 60].join("/")), b"a long path");
    entries.add(Regular, 0o644, "opaque/below/file", b"not to be seen");
    entries.add(Regular, 0o644, "etc/gone", b"not to be seen");
    entries.link(Link, "bin/again", "bin/tool");
    entries.link(Symlink, "bin/sh", "../bin/tool");
    entries.link(Symlink, "etc/far", &"../".repeat(60));
    for (kind, name, number) in [(Char, "dev/null", (1, 3)), (Block, "dev/disk", (254, 300))] {
        let mut header = entries.header(kind, 0o666);
        header.set_device_major(number.0).expect("a number");
        header.set_device_minor(number.1).expect("a number");
        entries.0.append_data(&mut header, name, Cursor::new(b"")).expect("an entry");
    }
    entries.add(Fifo, 0o622, "dev/pipe", b"");
    entries.0.into_inner().expect("an archive")
}

/// What an upper layer does to [`every_kind`]: removes, hides, replaces, changes, adds.
fn changes() -> Vec<u8> {
    use EntryType::{Directory, Regular};
    let mut entries = Entries(Builder::new(Vec::new()));
    entries.add(Directory, 0o700, "etc", b"");
    entries.add(Regular, 0o000, "etc/.wh.gone", b"");
    entries.add(Directory, 0o755, "opaque", b"");
    entries.add(Regular, 0o000, "opaque/.wh..wh..opq", b"");
    entries.add(Regular, 0o644, "opaque/new", b"seen");
    entries.add(Directory, 0o755, "bin", b"");
    entries.add(Regular, 0o755, "bin/sh", b"no longer a link");
    entries.0.into_inner().expect("an archive")
}
