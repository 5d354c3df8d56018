//! Images are loaded from what is open: files, pipes and readers.

use std::fs::File;
use std::io::{self, Cursor, Read, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use larder::ingest::ImageLoad;
use larder_tests::archive::{Packing, TestImage, docker_files, pack, tar_of};
use larder_tests::{LoadTest, contents, run};
use tokio::sync::oneshot;

fn archive() -> Vec<u8> {
    tar_of(&docker_files(&[TestImage::small(&["acme/app:1"])]))
}

fn load(test: &LoadTest, load: ImageLoad) -> Result<usize, String> {
    let loaded = run(async { load.run(&test.home.open().await).await });
    loaded.map(|images| images.len()).map_err(|error| error.to_string())
}

/// An archive is loaded from a reader, a file and a pipe, compressed or not, as from its path, and nothing else is left.
#[test]
fn whatever_is_open() {
    let path_test = LoadTest::new();
    path_test.load(&path_test.file("a.tar", &archive()), &[]).expect("loaded");
    let expected = contents(&path_test.home);
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let packed = pack(&archive(), packing);
        for kind in ["reader", "file", "file, later", "pipe"] {
            let test = LoadTest::new();
            let input = match kind {
                "reader" => ImageLoad::from_reader("a stream", Cursor::new(packed.clone())),
                "file" => {
                    ImageLoad::from_file("a stream", File::open(test.file("a", &packed)).expect("a file"))
                }
                "file, later" => {
                    let mut file =
                        File::open(test.file("a", &[&[7; 100][..], &packed].concat())).expect("a file");
                    file.read_exact(&mut [0; 100]).expect("its beginning");
                    ImageLoad::from_file("a stream", file)
                }
                _ => {
                    let (reader, mut writer) = std::io::pipe().expect("a pipe");
                    let packed = packed.clone();
                    thread::spawn(move || writer.write_all(&packed));
                    ImageLoad::from_file("a stream", File::from(std::os::fd::OwnedFd::from(reader)))
                }
            };
            assert_eq!(load(&test, input), Ok(1), "{packing:?}, {kind}");
            assert_eq!(contents(&test.home).keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        }
    }
}

/// What cannot be loaded from a stream is named as the stream is.
#[test]
fn streams_have_names() {
    let cut = &archive()[..2000];
    for (content, problem) in [
        (&b""[..], "it is empty"),
        (&[b'n'; 600], "it is neither a `docker save` archive nor an OCI image layout"),
        (cut, "it is cut off"),
    ] {
        let test = LoadTest::new();
        let refused = load(&test, ImageLoad::from_reader("a stream", Cursor::new(content.to_vec())));
        assert_eq!(refused, Err(format!("`a stream`: {problem}")));
        assert!(contents(&test.home).is_empty());
    }
}

/// A stream that fails in the middle says why, and what had come is not left.
#[test]
fn streams_that_fail() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line went dead"))
        }
    }
    let test = LoadTest::new();
    let input = Cursor::new(archive()[..5000].to_vec()).chain(Failing);
    let refused = load(&test, ImageLoad::from_reader("a stream", input));
    assert_eq!(refused, Err("`a stream`: it cannot be read: the line went dead".to_owned()));
    assert!(contents(&test.home).is_empty());
}

/// A stream that gives nothing keeps nobody waiting: dropping the future ends the work, but for the thread that reads.
#[test]
fn streams_that_give_nothing() {
    struct Stalled {
        reached: Option<oneshot::Sender<()>>,
        never: Receiver<()>,
    }
    impl Read for Stalled {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.reached.take().map(|reached| reached.send(()));
            let _ = self.never.recv();
            Ok(0)
        }
    }
    let test = LoadTest::new();
    let ((reached, is_reached), (keep, never)) = (oneshot::channel(), channel());
    run(async {
        let local = test.home.open().await;
        let input = Stalled { reached: Some(reached), never };
        tokio::select! {
            loaded = ImageLoad::from_reader("a stream", input).run(&local) => panic!("it was done before: {loaded:?}"),
            reached = is_reached => reached.expect("a read"),
        }
        // The runtime ends when its blocking tasks have.
    });
    assert!(contents(&test.home).is_empty());
    drop(keep);
}
