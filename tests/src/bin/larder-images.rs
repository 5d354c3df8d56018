//! Makes images on the spot, for the demo, in the three forms in which they come.
//!
//! `larder-images DIRECTORY` writes `shop.tar` as `docker save` does, with two images that share a layer; `worker.tar`, an
//! OCI archive with a gzip layer; and `tools`, an OCI directory with a zstd layer.

use std::fs;
use std::path::PathBuf;

use larder_tests::archive::{
    Item, Packing, TestImage, docker_files, layer, layout_files, tar_of, write_directory,
};

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("a directory"));
    // Something that does not become small when it is compressed.
    let shell: Vec<u8> = (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let base = layer(&[
        Item::Dir("bin"),
        Item::File("bin/sh", &shell),
        Item::Symlink("bin/ash", "sh"),
        Item::HardLink("bin/busybox", "bin/sh"),
        Item::Dir("etc"),
        Item::File("etc/os-release", b"NAME=Demo\nVERSION=1\n"),
        Item::File("etc/motd", b"hello\n"),
    ]);
    let app = |name: &str, text: &str| layer(&[Item::Dir("app"), Item::File(name, text.as_bytes())]);
    let first = vec![base.clone(), app("app/shop", "open\n")];
    // The upper layer removes a file of the lower.
    let second =
        vec![base.clone(), layer(&[Item::File("etc/.wh.motd", b"")]), app("app/shop", "open at night\n")];
    let shop = [TestImage::new(&["acme/shop:1"], first), TestImage::new(&["acme/shop:2"], second)];
    fs::write(directory.join("shop.tar"), tar_of(&docker_files(&shop))).expect("an archive");
    let worker = TestImage::new(&["acme/worker:1"], vec![base, app("app/worker", "busy\n")]);
    fs::write(directory.join("worker.tar"), tar_of(&layout_files(&[worker], Packing::Gzip)))
        .expect("an archive");
    let tools = TestImage::new(&["acme/tools:1"], vec![app("app/tool", "sharp\n")]);
    write_directory(&directory.join("tools"), &layout_files(&[tools], Packing::Zstd));
}
