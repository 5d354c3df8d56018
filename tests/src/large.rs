//! Images too large for memory, written while they are generated.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use crate::archive::{Files, Packing, add_blob, blob_name, this_architecture, write_directory};

/// The maximum size of a file in bytes. The minimum is one byte.
const MAX_FILE: u64 = 512 << 10;

/// An image on disk in two forms, which have the same blobs.
#[derive(Debug)]
pub struct LargeImage {
    /// The image as an OCI image layout.
    pub layout: PathBuf,
    /// The layout as a tar archive.
    pub archive: PathBuf,
}

impl LargeImage {
    /// Makes an image of this many layers with this many bytes of files each, in this directory. Half of the files
    /// are text, and half cannot be compressed. There are more small files than large ones. The same arguments
    /// produce the same image.
    pub fn make(directory: &Path, packing: Packing, layers: u64, layer_bytes: u64) -> Self {
        let image = Self { layout: directory.join("layout"), archive: directory.join("archive.tar") };
        fs::create_dir_all(image.layout.join("blobs/sha256")).expect("a directory");
        let written: Vec<(String, Value)> =
            (0..layers).map(|number| image.write_layer(packing, number, layer_bytes)).collect();
        let (diff_ids, descriptors): (Vec<String>, Vec<Value>) = written.into_iter().unzip();
        write_directory(&image.layout, &documents(&diff_ids, &descriptors));
        let mut archive = Builder::new(BufWriter::new(File::create(&image.archive).expect("an archive")));
        archive.append_dir_all("", &image.layout).and_then(|()| archive.finish()).expect("an archive");
        image
    }

    /// Writes a layer's blob, and returns its diff ID and descriptor.
    fn write_layer(&self, packing: Packing, number: u64, bytes: u64) -> (String, Value) {
        let path = self.layout.join("blobs/sha256/unnamed");
        let blob = Hashing::new(BufWriter::new(File::create(&path).expect("a blob")));
        let (diff_id, suffix, blob) = match packing {
            Packing::Plain => {
                let (diff_id, blob) = write_files(blob, number, bytes);
                (diff_id, "", blob)
            }
            Packing::Gzip => {
                let (diff_id, gzip) =
                    write_files(GzEncoder::new(blob, Compression::default()), number, bytes);
                (diff_id, "+gzip", gzip.finish().expect("a blob"))
            }
            Packing::Zstd => {
                let zstd = zstd::Encoder::new(blob, 3).expect("a blob");
                let (diff_id, zstd) = write_files(zstd, number, bytes);
                (diff_id, "+zstd", zstd.finish().expect("a blob"))
            }
        };
        let (digest, mut file) = blob.finish();
        file.flush().expect("a blob");
        let size = file.stream_position().expect("its size");
        fs::rename(path, self.layout.join(blob_name(&digest))).expect("its name");
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        (diff_id, json!({ "mediaType": media_type, "digest": digest, "size": size }))
    }
}

/// Returns everything in a layout except its layers.
fn documents(diff_ids: &[String], layers: &[Value]) -> Files {
    let mut files = Files::new();
    let platform = json!({ "os": "linux", "architecture": this_architecture() });
    let mut config = platform.clone();
    config["config"] = json!({ "Cmd": ["sh"] });
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = config.to_string().into_bytes();
    let config = add_blob(&mut files, "application/vnd.oci.image.config.v1+json", config);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut manifest = add_blob(&mut files, media_type, manifest.to_string().into_bytes());
    manifest["platform"] = platform;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "docker.io/acme/large:1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    files.insert("index.json".to_owned(), index.into_bytes());
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// Writes the archive of a layer, and returns its digest.
fn write_files<W: Write>(sink: W, number: u64, bytes: u64) -> (String, W) {
    let mut tar = Builder::new(Hashing::new(sink));
    let mut random = Random::new(number + 1);
    let mut left = bytes;
    for index in 0.. {
        if left == 0 {
            break;
        }
        // As many between one and two kilobytes as between one and two hundred.
        let size = (MAX_FILE >> (random.next() % 20)).min(left);
        let size = (size / 2 + random.next() % (size / 2 + 1)).clamp(1, left);
        left -= size;
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        let name = format!("layer{number}/{:04}/file{index}", index / 100);
        let content = Content { random: Random::new(random.next()), text: index % 2 == 0, word: Vec::new() };
        tar.append_data(&mut header, name, content.take(size)).expect("an entry");
    }
    tar.into_inner().expect("an archive").finish()
}

/// A generator of pseudo-random numbers, which are the same each time.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The content of a file without an end.
struct Content {
    random: Random,
    text: bool,
    /// The rest of the last word.
    word: Vec<u8>,
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            if self.word.is_empty() {
                let number = self.random.next();
                if self.text {
                    writeln!(self.word, "line {} of some text", number % 5000)?;
                } else {
                    self.word.extend(number.to_le_bytes());
                }
            }
            let count = self.word.len().min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&self.word[..count]);
            self.word.drain(..count);
            filled += count;
        }
        Ok(filled)
    }
}

/// A writer that hashes the bytes on the way.
struct Hashing<W> {
    sink: W,
    hasher: Sha256,
}

impl<W: Write> Hashing<W> {
    fn new(sink: W) -> Self {
        Self { sink, hasher: Sha256::new() }
    }

    fn finish(self) -> (String, W) {
        let hex: String = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("sha256:{hex}"), self.sink)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
