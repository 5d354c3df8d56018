//! Makes the data of the demo: the images that a team has built over some months, and a sandbox that uses one of them.
//!
//! `larder-images make DIRECTORY` writes an archive for each image, as `docker save` does, and prints a line for each:
//! the archive's name and the image's age in days, oldest first. All of them share a base, those of one repository a
//! runtime.
//!
//! `larder-images use HOME REFERENCE NAME` adds a sandbox of that name on an image to the index, as microsandbox does.

use std::error::Error;
use std::fs;
use std::path::Path;

use larder_images::{Item, TestImage, docker_files, layer, tar_of};
use rusqlite::{Connection, params};

const MIB: usize = 1 << 20;

/// A repository: the size of its runtime, the size of the layer of each version, and the age in days of each version.
const REPOSITORIES: [(&str, usize, usize, &[u32]); 3] = [
    ("acme/shop", 24 * MIB, 14 * MIB, &[96, 61, 33, 12, 0]),
    ("acme/worker", 16 * MIB, 11 * MIB, &[88, 47, 9, 2]),
    ("acme/builder", 40 * MIB, 6 * MIB, &[120, 30, 1]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", directory] => make(Path::new(directory)),
        ["use", home, reference, name] => add_sandbox(Path::new(home), reference, name),
        _ => Err("`larder-images make DIRECTORY`, or `larder-images use HOME REFERENCE NAME`".into()),
    }
}

fn make(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut random = Random(1);
    let base = layer(&[
        Item::Dir("bin"),
        Item::File("bin/sh", &random.bytes(32 * MIB)),
        Item::Symlink("bin/ash", "sh"),
        Item::Dir("etc"),
        Item::File("etc/os-release", b"NAME=Demo\nVERSION=1\n"),
    ]);
    let mut made = Vec::new();
    for (repository, runtime, app, ages) in REPOSITORIES {
        let runtime = layer(&[Item::Dir("lib"), Item::File("lib/runtime", &random.bytes(runtime))]);
        for (version, age) in (1..).zip(ages) {
            let app = layer(&[Item::Dir("app"), Item::File("app/main", &random.bytes(app))]);
            let name = format!("{repository}:{version}");
            let image = TestImage::new(&[&name], vec![base.clone(), runtime.clone(), app]);
            let file = format!("{}.tar", name.replace(['/', ':'], "-"));
            fs::write(directory.join(&file), tar_of(&docker_files(&[image])))?;
            made.push((*age, file));
        }
    }
    made.sort_by(|a, b| b.cmp(a));
    for (age, file) in made {
        println!("{file} {age}");
    }
    Ok(())
}

/// A generator of bytes that do not compress. They are the same in each run.
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

fn add_sandbox(home: &Path, reference: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let index = Connection::open(home.join("db/msb.db"))?;
    let manifest: i64 =
        index.query_row("SELECT manifest_id FROM image_ref WHERE reference = ?1", [reference], |row| {
            row.get(0)
        })?;
    index.execute("INSERT INTO sandbox (name, config, status) VALUES (?1, '{}', 'running')", [name])?;
    index.execute(
        "INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode) VALUES (?1, ?2, 'layered')",
        params![index.last_insert_rowid(), manifest],
    )?;
    Ok(())
}
