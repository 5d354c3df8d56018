//! What cannot be saved, and what saving may not be disturbed by.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use larder::ingest::{ImageSave, Progress, ProgressEvent};
use larder::{Image, ImageArchiveFormat, MicrosandboxError};
use larder_erofs::writer::{Entry, ImageWriter, Options};
use larder_erofs::{EntryPath, Metadata, Permissions, Timestamp, Xattrs};
use larder_tests::real::{LayerOf, fill, layer_path};
use larder_tests::{Home, run};

use crate::archives::{everything, image, save};

fn fails(home: &Home, references: &[&str], output: &str) -> MicrosandboxError {
    let references: Vec<String> = references.iter().map(|&reference| reference.to_owned()).collect();
    let output = home.path().with_file_name(output);
    run(async {
        Image::save_local(&home.open().await, &references, &output, ImageArchiveFormat::Docker).await
    })
    .expect_err("a refusal")
}

/// The whole chain, with what differs from run to run replaced.
fn said(home: &Home, error: &MicrosandboxError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.replace(&home.path().with_file_name("").display().to_string(), "DIR/")
}

/// A layer's file that is missing, cut off, damaged or something else is named with the image that needs it, and the
/// old archive stays.
#[test]
fn damaged_layers_are_named() {
    let home = Home::made();
    let layer = everything();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    let file = home.cache().join(layer_path(&layer));
    let output = home.path().with_file_name("a.tar");
    fs::write(&output, "old").expect("a file");
    let name = format!("DIR/home/cache/{}", layer_path(&layer));
    let mut broken = layer.clone();
    let length = broken.len();
    // Where the inodes are: all but the superblock and the data.
    broken[length - 40_000..].fill(0xaa);
    let damages: [(&dyn Fn(), String); 4] = [
        (
            &|| fs::write(&file, &layer[..8192]).expect("a file"),
            format!("`{name}`, which `acme/app:1` needs, is damaged: the image has 8192 of {length} bytes"),
        ),
        (
            &|| fs::write(&file, &broken).expect("a file"),
            format!("`{name}`, which `acme/app:1` needs, is damaged"),
        ),
        (
            &|| {
                fs::remove_file(&file).expect("gone");
                fs::create_dir(&file).expect("a directory");
            },
            format!("`{name}`, which `acme/app:1` needs, is damaged: it is not a regular file"),
        ),
        (&|| fs::remove_dir(&file).expect("gone"), format!("`{name}` is missing, and `acme/app:1` needs it")),
    ];
    for (damage, expected) in damages {
        damage();
        let error = fails(&home, &["acme/app:1"], "a.tar");
        let text = said(&home, &error);
        assert!(text.starts_with(&expected), "{text}\n{expected}");
        assert!(matches!(&error, MicrosandboxError::Save(error) if error.is_damage()), "{error:?}");
        assert_eq!(fs::read(&output).expect("the old archive"), b"old");
        let around = fs::read_dir(home.path().with_file_name("")).expect("a directory");
        assert_eq!(around.count(), 2, "the home and the old archive");
    }
}

/// A length that the index remembers of a layer is not believed: microsandbox builds artifacts again without it.
#[test]
fn remembered_lengths_are_not_believed() {
    let home = Home::made();
    let layer = LayerOf::new().file("a", "b").done();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    home.execute("UPDATE layer SET erofs_size_bytes = 77");
    save(&home, &["acme/app:1"], ImageArchiveFormat::Docker, "a.tar");
}

/// What is not there, names nothing, or has no place to go is refused before anything is written.
#[test]
fn what_cannot_begin() {
    let home = Home::made();
    fill(&home.path(), &[image("acme/app:1", &[])]);
    let table = [
        (&["acme/app:1", "nope"][..], "a.tar", "image not found: nope"),
        (&["Not one"], "a.tar", "`Not one` is not an image reference"),
        (&[], "a.tar", "there is nothing to save: name at least one image"),
        (&["acme/app:1"], "home", "could not write `DIR/home`: "),
        (&["acme/app:1"], "missing/a.tar", "could not write `DIR/missing/a.tar`: "),
    ];
    for (references, output, expected) in table {
        let text = said(&home, &fails(&home, references, output));
        assert!(text.starts_with(expected), "{text}");
    }
    home.execute("PRAGMA foreign_keys = off; UPDATE image_ref SET manifest_id = 77");
    let text = said(&home, &fails(&home, &["acme/app:1"], "a.tar"));
    assert_eq!(text, "`acme/app:1` resolves to nothing in the index: pull it again");
    assert_eq!(fs::read_dir(home.path().with_file_name("")).expect("a directory").count(), 1);
}

/// What tar, or a layer in it, has no form for is refused by name instead of being written as something else.
#[test]
fn what_no_archive_can_have() {
    let plain = Metadata {
        permissions: Permissions::from_mode(0o644),
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        xattrs: Xattrs::new(),
    };
    let whiteout = Entry::CharDevice(larder_erofs::DeviceNumber::ZERO);
    let long = "n".repeat(252);
    let table = [
        (".wh.a", plain.clone(), Entry::Fifo, "a name that begins with `.wh.` means a removal there"),
        (&long, plain.clone(), whiteout, "the name of what is removed leaves no room for `.wh.`"),
    ];
    for (name, metadata, entry, why) in table {
        let home = Home::made();
        let mut writer =
            ImageWriter::new(std::io::Cursor::new(Vec::new()), Options::default()).expect("a writer");
        writer.add(&EntryPath::parse(name.as_bytes()).expect("a path"), metadata, entry).expect("an entry");
        let layer = writer.finish().expect("an image").0.into_inner();
        fill(&home.path(), &[image("acme/app:1", &[&LayerOf::new().done(), &layer])]);
        let text = said(&home, &fails(&home, &["acme/app:1"], "a.tar"));
        assert_eq!(text, format!("`{name}` in layer 1 of `acme/app:1` cannot be in an archive: {why}"));
    }
}

/// Stops at the first layer until it is told to go on.
struct Stop {
    reached: Mutex<Option<tokio::sync::oneshot::Sender<()>>>,
    go_on: Mutex<Receiver<()>>,
}

impl Stop {
    fn new() -> (Arc<Self>, tokio::sync::oneshot::Receiver<()>, Sender<()>) {
        let (reached, is_reached) = tokio::sync::oneshot::channel();
        let (tell, go_on) = channel();
        (Arc::new(Self { reached: Mutex::new(Some(reached)), go_on: Mutex::new(go_on) }), is_reached, tell)
    }
}

impl Progress for Stop {
    fn event(&self, _: ProgressEvent<'_>) {
        if let Some(reached) = self.reached.lock().expect("no panic").take() {
            // Where the test has failed, nobody listens any more.
            let _ = reached.send(());
            let _ = self.go_on.lock().expect("no panic").recv();
        }
    }
}

fn temporary_files(home: &Home) -> Vec<PathBuf> {
    let around = fs::read_dir(home.path().with_file_name("")).expect("a directory");
    around.map(|entry| entry.expect("an entry").path()).filter(|path| path != &home.path()).collect()
}

/// While an image is saved, nobody removes its files, not even by force; afterwards anybody does.
#[test]
fn files_are_held_while_they_are_read() {
    let home = Home::made();
    let layer = everything();
    fill(&home.path(), &[image("acme/app:1", &[&layer])]);
    let output = home.path().with_file_name("a.tar");
    let (stop, reached, go_on) = Stop::new();
    run(async {
        let local = home.open().await;
        let save = ImageSave::new(["acme/app:1"], &output).progress(stop).run(&local);
        let meanwhile = async {
            reached.await.expect("a layer");
            assert!(!output.exists());
            let removed = Image::remove_local(&local, "acme/app:1", true).await;
            go_on.send(()).expect("somebody waits");
            removed
        };
        let (saved, removed) = tokio::join!(save, meanwhile);
        assert!(matches!(removed, Err(MicrosandboxError::ImageInUse(_))), "{removed:?}");
        saved.expect("an archive");
        Image::remove_local(&local, "acme/app:1", true).await.expect("removed");
    });
    assert_eq!(crate::read::docker(&output).len(), 1);
}

/// Dropping the future ends the work and leaves nothing.
#[test]
fn what_is_dropped_leaves_nothing() {
    let home = Home::made();
    fill(&home.path(), &[image("acme/app:1", &[&everything()])]);
    let output = home.path().with_file_name("a.tar");
    let (stop, reached, go_on) = Stop::new();
    run(async {
        let local = home.open().await;
        let save = ImageSave::new(["acme/app:1"], &output).progress(stop).run(&local);
        tokio::select! {
            saved = save => panic!("it was done before: {saved:?}"),
            reached = reached => reached.expect("a layer"),
        }
        assert_eq!(temporary_files(&home).len(), 1);
        go_on.send(()).expect("somebody waits");
        // The runtime ends when its blocking tasks have.
    });
    assert_eq!(temporary_files(&home), Vec::<PathBuf>::new());
}

/// A symbolic link to an archive stays one, and the archive is for its owner alone.
#[test]
fn links_are_followed() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::made();
    fill(&home.path(), &[image("acme/app:1", &[])]);
    let at = |name: &str| home.path().with_file_name(name);
    File::create(at("real.tar")).expect("a file");
    std::os::unix::fs::symlink("real.tar", at("link.tar")).expect("a link");
    crate::archives::save(&home, &["acme/app:1"], ImageArchiveFormat::Docker, "link.tar");
    assert!(at("link.tar").is_symlink());
    assert_eq!(crate::read::docker(&at("real.tar")).len(), 1);
    let mode = fs::metadata(at("real.tar")).expect("the archive").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
