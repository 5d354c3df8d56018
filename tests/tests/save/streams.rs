//! Archives that go to a stream, and compression.

use std::fs;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use larder::ingest::{GzipLevel, ImageSave, LayerCompression, ZstdLevel};
use larder::{ImageArchiveFormat, MicrosandboxError};
use larder_tests::real::{LayerOf, fill};
use larder_tests::{Home, contents, run};
use tokio::sync::oneshot;

use crate::archives::{FORMATS, everything, image};
use crate::read::{docker, holds, layer_of, oci};

/// A stream that fails after so many bytes.
#[derive(Clone)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    most: usize,
}

impl Stream {
    fn new(most: usize) -> Self {
        Self { bytes: Arc::default(), most }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic").clone()
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.bytes.lock().expect("no panic");
        if all.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        all.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const COMPRESSIONS: [LayerCompression; 3] = [
    LayerCompression::None,
    LayerCompression::Gzip(GzipLevel::DEFAULT),
    LayerCompression::Zstd(ZstdLevel::DEFAULT),
];

/// A home with two images that share a layer of some megabytes.
fn with_images() -> Home {
    let home = Home::made();
    let large: Vec<u8> =
        (0..3_000_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
    let (base, top) = (everything(), LayerOf::new().file("large", large).done());
    fill(&home.path(), &[image("acme/app:1", &[&base, &top]), image("acme/base:1", &[&base])]);
    home
}

/// A stream gets the bytes that a file gets, in both forms, compressed and not. The home stays as it was.
#[test]
fn streams_get_what_files_get() {
    let home = with_images();
    let before = contents(&home);
    let references = ["acme/app:1", "acme/base:1"];
    for format in FORMATS {
        for compression in COMPRESSIONS {
            let output = home.path().with_file_name("a.tar");
            let stream = Stream::new(usize::MAX);
            let saves = [
                ImageSave::new(references, &output),
                ImageSave::to_writer(references, "a stream", stream.clone()),
            ];
            let reports = saves.map(|save| {
                let save = save.format(format).compression(compression);
                run(async { save.run(&home.open().await).await }).expect("an archive")
            });
            assert_eq!(reports[0], reports[1]);
            let file = fs::read(&output).expect("the archive");
            assert!(stream.bytes() == file, "{format:?}, {compression:?}");
            assert_eq!(reports[1].bytes_written, file.len() as u64);
        }
    }
    assert_eq!(contents(&home).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

/// A stream that ends early ends the save, which leaves nothing behind; what the stream got lists no images.
#[test]
fn streams_that_end_early() {
    let home = with_images();
    let before = contents(&home);
    for compression in COMPRESSIONS {
        for most in [0, 1_000_000] {
            let stream = Stream::new(most);
            let save = ImageSave::to_writer(["acme/app:1"], "a stream", stream.clone());
            let save = save.compression(compression);
            let error = run(async { save.run(&home.open().await).await }).expect_err("a broken stream");
            let MicrosandboxError::Io { path, source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(source.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(path.as_os_str(), "a stream");
            let got = stream.bytes();
            assert!(!got.windows(13).any(|bytes| bytes == b"manifest.json"), "{compression:?}");
        }
    }
    assert_eq!(contents(&home).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

/// What is not found is said before a stream gets a byte.
#[test]
fn streams_wait_for_the_first_image() {
    let home = with_images();
    let stream = Stream::new(0);
    let save = ImageSave::to_writer(["acme/app:1", "nope"], "a stream", stream);
    let error = run(async { save.run(&home.open().await).await }).expect_err("no such image");
    assert!(matches!(error, MicrosandboxError::ImageNotFound(_)), "{error:?}");
}

/// Compression changes the form of a layer, and not what it holds; a higher level makes it smaller.
#[test]
fn compression_is_of_the_form_alone() {
    let home = with_images();
    let output = home.path().with_file_name("a.tar");
    let saved = |format, compression| {
        let save = ImageSave::new(["acme/app:1"], &output).format(format).compression(compression);
        run(async { save.run(&home.open().await).await }).expect("an archive").images.remove(0)
    };
    let gzip = |level| LayerCompression::Gzip(GzipLevel::new(level).expect("a level"));
    let zstd = |level| LayerCompression::Zstd(ZstdLevel::new(level).expect("a level"));
    for (format, [fast, small]) in
        FORMATS.into_iter().flat_map(|format| [(format, [gzip(1), gzip(9)]), (format, [zstd(1), zstd(19)])])
    {
        let plain = saved(format, LayerCompression::None);
        assert!(plain.layers.iter().all(|layer| layer.blob_digest == layer.diff_id));
        let sizes = [fast, small].map(|compression| {
            let packed = saved(format, compression);
            assert_eq!(packed.config_digest, plain.config_digest);
            let layers = match format {
                ImageArchiveFormat::Docker => docker(&output).remove(0).layers,
                ImageArchiveFormat::Oci => oci(&output).remove(0).0.layers,
            };
            assert_eq!(holds(&layer_of(&layers[0])), holds(&everything()));
            packed.layers.iter().map(|layer| layer.size_bytes).sum::<u64>()
        });
        assert!(sizes[0] > sizes[1], "{sizes:?}");
    }
    assert_eq!((GzipLevel::new(0), GzipLevel::new(10)), (None, None));
    assert_eq!((ZstdLevel::new(0), ZstdLevel::new(20)), (None, None));
}

/// A stream that takes nothing keeps nobody waiting: dropping the future ends the work, but for the thread that writes.
#[test]
fn streams_that_take_nothing() {
    struct Stalled {
        reached: Option<oneshot::Sender<()>>,
        never: Mutex<Receiver<()>>,
    }
    impl Write for Stalled {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.reached.take().map(|reached| reached.send(()));
            let _ = self.never.lock().expect("no panic").recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let home = with_images();
    let ((reached, is_reached), (keep, never)) = (oneshot::channel(), channel());
    let stream = Stalled { reached: Some(reached), never: Mutex::new(never) };
    run(async {
        let local = home.open().await;
        let save = ImageSave::to_writer(["acme/app:1"], "a stream", stream).run(&local);
        tokio::select! {
            saved = save => panic!("it was done before: {saved:?}"),
            reached = is_reached => reached.expect("a piece"),
        }
        // The runtime ends when its blocking tasks have.
    });
    drop(keep);
}
