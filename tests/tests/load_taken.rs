//! Layers and archives as other tools write them are taken as those tools take them.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};

use larder::ingest::{ImageLoad, Progress, ProgressEvent};
use larder_tests::archive::{
    Files, Item, Packing, TestImage, blob_name, digest, docker_files, layer, layout_files, pack, tar_of,
    write_directory,
};
use larder_tests::{LoadTest, Seen, entries, run, tree};

/// What a load told of the names that it could not take as they are.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn event(&self, event: ProgressEvent<'_>) {
        let told = match event {
            ProgressEvent::EntriesSkipped { count, types, .. } => format!("skipped {count} of `{types}`"),
            ProgressEvent::LinksCovered { count, paths, .. } => format!("covered {count}: {paths:?}"),
            _ => return,
        };
        self.0.lock().expect("the list").push(told);
    }
}

/// Loads an image of these layers. Returns its manifest and what was told.
fn load(test: &LoadTest, layers: &[Vec<u8>]) -> (String, Vec<String>) {
    let image = TestImage::new(&["acme/app:1"], layers.to_vec());
    let archive = test.archive(&docker_files(&[image]));
    let told = Arc::new(Told::default());
    let load = ImageLoad::new(archive).progress(told.clone());
    let handles = run(async { load.run(&test.home.open().await).await }).expect("loaded");
    let told = std::mem::take(&mut *told.0.lock().expect("the list"));
    (handles[0].manifest_digest().expect("a manifest").to_owned(), told)
}

/// Returns the paths of an image of these layers, with the contents of files and the targets of links.
fn names(layers: &[Vec<u8>]) -> Vec<(String, String)> {
    let test = LoadTest::new();
    let (manifest, _) = load(&test, layers);
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    tree(&test.home, &manifest, &diff_ids).into_iter().filter(|(_, text)| text != "Directory").collect()
}

/// Returns an entry of an image of one layer.
fn entry(content: &[u8], path: &str) -> Seen {
    let test = LoadTest::new();
    let (manifest, _) = load(&test, &[content.to_vec()]);
    entries(&test.home, &manifest, &[digest(content)])[path].clone()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

/// Names in a layer count from its root, with slashes at their beginning or without: those of entries, of the targets of
/// hard links, and of whiteouts.
#[test]
fn absolute_names() {
    let lower = layer(&[
        Item::Dir("/nix"),
        Item::File("/nix/store/a", b"a"),
        Item::File("//etc//x", b"x"),
        Item::File("./etc/y", b"y"),
        Item::HardLink("/nix/link", "/nix/store/a"),
        Item::HardLink("nix/link2", "//nix/link"),
        Item::File("etc/b", b"b"),
    ]);
    let upper = layer(&[Item::File("/etc/.wh.b", b"")]);
    assert_eq!(
        names(&[lower, upper]),
        pairs(&[("etc/x", "x"), ("etc/y", "y"), ("nix/link", "a"), ("nix/link2", "a"), ("nix/store/a", "a")])
    );
}

/// Archives whose members have absolute names are those of the same names without the slash.
#[test]
fn absolute_members() {
    let image = TestImage::small(&["acme/app:1"]);
    for files in [
        docker_files(std::slice::from_ref(&image)),
        layout_files(std::slice::from_ref(&image), Packing::Gzip),
    ] {
        let test = LoadTest::new();
        let files: Files = files.into_iter().map(|(name, content)| (format!("/{name}"), content)).collect();
        let handles = test.load(&test.archive(&files), &[]).expect("loaded");
        assert_eq!(handles[0].layer_count(), 2);
    }
}

/// An entry below a symbolic link of the same layer lies where the link leads within the layer, and so do what removes and
/// what is linked there.
#[test]
fn below_a_link_of_the_layer() {
    let lower = layer(&[Item::File("usr/lib/gone", b"x"), Item::File("usr/share/all/old", b"x")]);
    let upper = layer(&[
        Item::Dir("usr/lib"),
        Item::Symlink("lib", "usr/lib"),
        Item::File("lib/a", b"a"),
        Item::HardLink("lib/b", "lib/a"),
        Item::File("lib/.wh.gone", b""),
        Item::Symlink("share", "../../usr/share"),
        Item::File("share/all/.wh..wh..opq", b""),
        Item::Symlink("usr/lib/back", "/lib"),
        Item::File("usr/lib/back/back/c", b"c"),
    ]);
    assert_eq!(
        names(&[lower, upper]),
        pairs(&[
            ("lib", "usr/lib"),
            ("share", "../../usr/share"),
            ("usr/lib/a", "a"),
            ("usr/lib/b", "a"),
            ("usr/lib/back", "/lib"),
            ("usr/lib/c", "c"),
        ])
    );
}

/// A directory of an upper layer that takes the place of a link to a directory hides what the link led to, which is told; one
/// that the layer removes first is not.
#[test]
fn covered_links_are_told() {
    let lower = layer(&[
        Item::File("usr/lib/libc", b"x"),
        Item::Symlink("lib", "usr/lib"),
        Item::Symlink("lib64", "usr/lib"),
    ]);
    let upper =
        layer(&[Item::File("lib/x", b"x"), Item::File(".wh.lib64", b""), Item::File("lib64/y", b"y")]);
    let (_, told) = load(&LoadTest::new(), &[lower, upper]);
    assert_eq!(told, [r#"covered 1: ["lib"]"#]);
}

/// Hard links to the files that AUFS kept for its links are names of these files, and whiteouts that are hard links are
/// whiteouts.
#[test]
fn names_of_aufs() {
    let lower = layer(&[Item::File("a", b"x"), Item::File("b", b"x")]);
    let upper = layer(&[
        Item::Dir(".wh..wh.plnk"),
        Item::File(".wh..wh.plnk/123.456", b"kept"),
        Item::HardLink("usr/x", "/.wh..wh.plnk/123.456"),
        Item::HardLink("usr/y", ".wh..wh.plnk/123.456"),
        Item::File(".wh..wh.aufs", b""),
        Item::HardLink(".wh.a", ".wh..wh.aufs"),
        Item::HardLink(".wh.b", ".wh.a"),
    ]);
    assert_eq!(names(&[lower, upper.clone()]), pairs(&[("usr/x", "kept"), ("usr/y", "kept")]));
    assert_eq!(entry(&upper, "usr/y").links, 2);
}

/// A long name ends at its first NUL, whatever stands behind it.
#[test]
fn long_names_with_nuls() {
    for end in [&b"\0"[..], &[0; 512], b"\0rest"] {
        let name = [&[b'n'; 150], end].concat();
        let content = layer(&[Item::Raw("././@LongLink", b'L', &name), Item::File("short", b"x")]);
        assert_eq!(names(&[content]), pairs(&[(&"n".repeat(150), "x")]));
    }
}

/// An empty value in an extended header means that the header's own counts; an extended attribute may be empty. Of two
/// extended headers the last one counts.
#[test]
fn extended_headers() {
    let records =
        ["uid=", "gid=", "size=", "mtime=", "path=", "linkpath=", "SCHILY.xattr.user.overlay.origin="];
    // The length of a record is the whole: its digits, a space and a line feed are part of it.
    let record = |pair: &&str| format!("{} {pair}\n", pair.len() + if pair.len() < 7 { 3 } else { 4 });
    let records: String = records.iter().map(record).collect();
    let content = layer(&[Item::Raw("x", b'x', records.as_bytes()), Item::File("a", b"x")]);
    let seen = entry(&content, "a");
    assert_eq!((seen.metadata.uid, seen.metadata.mtime.seconds()), (1000, 1_700_000_000));
    assert_eq!(seen.metadata.xattrs.len(), 1);
    let content = layer(&[
        Item::Raw("x", b'x', b"14 path=first\n"),
        Item::Raw("x", b'x', b"15 path=second\n"),
        Item::File("a", b"x"),
    ]);
    assert_eq!(names(&[content]), pairs(&[("second", "x")]));
}

/// Owners below zero are those of systems that count so.
#[test]
fn owners_below_zero() {
    let mut content = layer(&[Item::File("a", b"x")]);
    // The owner is a binary number of eight bytes.
    content[108..116].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    content[148..156].fill(b' ');
    let sum: u32 = content[..512].iter().map(|&byte| u32::from(byte)).sum();
    content[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(entry(&content, "a").metadata.uid, 4_294_967_294);
}

/// Entries of types that no image has are left out with their data, and counted.
#[test]
fn unknown_types_are_left_out() {
    let content = layer(&[
        Item::Raw("label", b'V', b""),
        Item::Raw("odd", b'Z', &[b'x'; 700]),
        Item::Raw("odder", b'Z', b"x"),
        Item::File("a", b"a"),
    ]);
    let test = LoadTest::new();
    let (manifest, told) = load(&test, std::slice::from_ref(&content));
    assert_eq!(told, ["skipped 3 of `VZ`"]);
    assert_eq!(tree(&test.home, &manifest, &[digest(&content)])["a"], "a");
}

/// The zeros at the end of an archive may be cut off anywhere.
#[test]
fn cut_ends() {
    let whole = layer(&[Item::File("a", b"a")]);
    for zeros in [0, 1, 511, 512, 513, 700, 1023, 1024] {
        let content = [&whole[..1024], &vec![0; zeros]].concat();
        assert_eq!(names(&[content]), pairs(&[("a", "a")]), "{zeros}");
    }
}

/// Zeros behind the last member of a gzipped layer or archive are padding.
#[test]
fn padded_gzip() {
    let image = TestImage::small(&["acme/app:1"]);
    let mut files = layout_files(std::slice::from_ref(&image), Packing::Gzip);
    let padded = [pack(&image.layers[0], Packing::Gzip), vec![0; 512]].concat();
    let (old, new) = (digest(&pack(&image.layers[0], Packing::Gzip)), digest(&padded));
    // Manifest and index name the blob by its new digest and size.
    let (old_size, new_size) = (padded.len() - 512, padded.len());
    files.remove(&blob_name(&old));
    files.insert(blob_name(&new), padded);
    let (name, manifest) = files
        .iter()
        .find(|(_, content)| String::from_utf8_lossy(content).contains(&old))
        .map(|(name, content)| (name.clone(), String::from_utf8_lossy(content).into_owned()))
        .expect("the manifest");
    let changed = manifest
        .replace(&old, &new)
        .replace(&format!("\"size\":{old_size}}}"), &format!("\"size\":{new_size}}}"));
    let index = String::from_utf8_lossy(&files["index.json"])
        .replace(&digest(manifest.as_bytes()), &digest(changed.as_bytes()))
        .replace(&format!("\"size\":{}", manifest.len()), &format!("\"size\":{}", changed.len()));
    files.remove(&name);
    files.insert(blob_name(&digest(changed.as_bytes())), changed.into_bytes());
    files.insert("index.json".to_owned(), index.into_bytes());
    let test = LoadTest::new();
    test.load(&test.archive(&files), &[]).expect("a padded layer");
    let archive = [pack(&tar_of(&docker_files(&[image])), Packing::Gzip), vec![0; 10_000]].concat();
    LoadTest::new().load(&test.file("padded", &archive), &[]).expect("a padded archive");
}

/// A link in an archive counts from its directory, or from the root where there is nothing.
#[test]
fn links_of_archives() {
    for target in ["../first/layer.tar", "first/layer.tar", "/first/layer.tar"] {
        let test = LoadTest::new();
        let content = layer(&[Item::File("a", b"a")]);
        let mut files = docker_files(&[TestImage::new(&["acme/app:1"], vec![content.clone()])]);
        let name = format!("{}/layer.tar", &digest(&content)[7..]);
        files.remove(&name);
        files.insert("first/layer.tar".to_owned(), content);
        let mut items: Vec<Item<'_>> =
            files.iter().map(|(name, content)| Item::File(name, content)).collect();
        items.push(Item::Symlink(&name, target));
        test.load(&test.file("archive.tar", &layer(&items)), &[]).expect(target);
    }
}

/// The blobs of a layout in a directory may be links that lead out of it, as Bazel writes them. Its documents may not.
#[test]
fn blobs_outside_of_a_layout() {
    let test = LoadTest::new();
    write_directory(&test.path("layout"), &layout_files(&[TestImage::small(&["acme/app:1"])], Packing::Gzip));
    let (blobs, moved) = (test.path("layout/blobs/sha256"), test.path("elsewhere"));
    fs::rename(&blobs, &moved).expect("moved");
    fs::create_dir(&blobs).expect("a directory");
    for blob in fs::read_dir(&moved).expect("a directory") {
        let blob = blob.expect("an entry");
        symlink(blob.path(), blobs.join(blob.file_name())).expect("a link");
    }
    test.load(&test.path("layout"), &[]).expect("loaded");
    let index = test.path("layout/index.json");
    fs::rename(&index, test.path("index.json")).expect("moved");
    symlink("../index.json", &index).expect("a link");
    let error = test.load(&test.path("layout"), &[]).expect_err("refused").to_string();
    assert!(error.ends_with("entry `index.json`: it leads out of the directory"), "{error}");
}
