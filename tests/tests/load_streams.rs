//! Images are loaded from what is open: files, pipes and readers.

use std::fs::File;
use std::io::{Cursor, Read as _, Write as _};
use std::thread;

use larder::ingest::ImageLoad;
use larder_tests::archive::{Packing, TestImage, docker_files, pack, tar_of};
use larder_tests::{LoadTest, contents, run};

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
        (&b""[..], "it is neither a `docker save` archive nor an OCI image layout"),
        (&[b'n'; 600], "it is neither a `docker save` archive nor an OCI image layout"),
        (cut, "it is cut off"),
    ] {
        let test = LoadTest::new();
        let refused = load(&test, ImageLoad::from_reader("a stream", Cursor::new(content.to_vec())));
        assert_eq!(refused, Err(format!("`a stream`: {problem}")));
        assert!(contents(&test.home).is_empty());
    }
}
