//! A home of a dozen images that share layers, copied for each run: some are free, and of the others each is protected
//! in a way of its own. It has files that nothing owns, and files that are nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use larder::{Image, LocalBackend};
use larder_tests::archive::{Item, TestImage, digest, docker_files, layer, tar_of};
use larder_tests::{Home, run};
use tempfile::TempDir;

/// The home as each run finds it, and what is beside it.
pub(crate) struct Template {
    home: Home,
    /// Archives and plans.
    pub(crate) beside: TempDir,
    /// What the program counts as now: days after all of it was made.
    pub(crate) now: DateTime<Utc>,
    /// The references that nothing may remove.
    pub(crate) protected: BTreeSet<String>,
    /// The others.
    pub(crate) free: BTreeSet<String>,
    /// Every file of the cache but locks, with its content.
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    /// The files of the cache that nothing owns and that may go.
    pub(crate) orphans: BTreeSet<PathBuf>,
    /// The files of the cache that stay, whatever is done.
    pub(crate) kept: BTreeSet<PathBuf>,
    /// The entry that an operation holds while the program runs.
    leased: String,
}

/// The reference of a number.
pub(crate) fn reference(number: u32) -> String {
    format!("docker.io/acme/app:{number}")
}

/// The last number of an image in the home.
const LAST: u32 = 13;

/// The images that `load` takes in, beside those that are there: they share layers with these.
pub(crate) const NEW: [u32; 2] = [20, 21];

const SANDBOX: u32 = 0;
const SNAPSHOT: u32 = 1;
const CONFIG: u32 = 2;
const PINNED: u32 = 3;
const LEASED: u32 = 4;
/// A sandbox uses it, and its reference was removed by force.
const FORCED: u32 = 5;
/// Its reference was lost, not its manifest.
const UNREACHED: u32 = 6;
/// Its metadata is that of the image of the sandbox.
const ALIAS: u32 = 7;

/// An image of a layer that all have, one that a third has, and one of its own; some have the same as another.
fn image(number: u32) -> TestImage {
    let content = |name: &str, count: usize| layer(&[Item::File(name, &vec![b'x'; count])]);
    let own = if number == LAST { LAST - 1 } else { number };
    let layers = vec![
        content("base", 9000),
        content(&format!("group{}", number % 3), 100),
        content(&format!("own{own}"), 5000),
    ];
    TestImage::new(&[&reference(number)], layers)
}

fn name_of(digest: &str) -> String {
    digest.replace(':', "_")
}

impl Template {
    pub(crate) fn make() -> Self {
        let (home, beside) = (Home::missing(), tempfile::tempdir().expect("a directory"));
        let images: Vec<TestImage> = (0..=LAST).map(image).collect();
        let archive = beside.path().join("all.tar");
        fs::write(&archive, tar_of(&docker_files(&images))).expect("an archive");
        let new: Vec<TestImage> = NEW.into_iter().map(image).collect();
        fs::write(beside.path().join("new.tar"), tar_of(&docker_files(&new))).expect("an archive");
        run(async {
            let local = LocalBackend::builder().home(home.path()).build().await.expect("a home");
            Image::load_local(&local, &archive, Vec::new()).await.expect("loaded");
            local.pin(&reference(PINNED)).await.expect("pinned");
            use_images(&home);
            Image::remove_local(&local, &reference(FORCED), true).await.expect("removed");
        });
        let (leased, orphans, foreign) = damage(&home);
        outside(&home);
        let files = files_of(&home.cache());
        let all = home.texts("SELECT reference FROM image_ref");
        let protected: BTreeSet<String> =
            [SANDBOX, SNAPSHOT, CONFIG, PINNED, LEASED].into_iter().map(reference).collect();
        let free = &all - &protected;
        assert_eq!((protected.len(), free.len()), (5, 7));
        let mut template = Self {
            home,
            beside,
            now: Utc::now() + TimeDelta::days(3),
            protected,
            free,
            files,
            orphans,
            kept: foreign,
            leased,
        };
        template.find_kept();
        template
    }

    /// Finds the files that stay, by what the index says of the images that do.
    fn find_kept(&mut self) {
        let rooms = [
            (
                "layers",
                ".erofs",
                "SELECT DISTINCT diff_id FROM layer JOIN manifest_layer ON layer_id = layer.id
                        WHERE manifest_id IN (SELECT id FROM kept)",
            ),
            ("fsmeta", ".erofs", "SELECT digest FROM kept"),
            ("vmdk", ".vmdk", "SELECT digest FROM kept"),
        ];
        for (room, suffix, query) in rooms {
            let numbers = [SANDBOX, SNAPSHOT, CONFIG, PINNED, LEASED, FORCED];
            let digests: Vec<String> =
                numbers.iter().map(|&number| format!("'{}'", self.config_digest(number))).collect();
            let kept = format!(
                "WITH kept AS (SELECT id, digest FROM manifest WHERE config_digest IN ({})) {query}",
                digests.join(",")
            );
            let digests = self.home.texts(&kept);
            assert!(digests.len() >= numbers.len());
            self.kept.extend(digests.iter().map(|digest| Path::new(room).join(name_of(digest) + suffix)));
        }
        for number in [SANDBOX, SNAPSHOT, CONFIG, PINNED, LEASED, FORCED, ALIAS] {
            self.kept.insert(metadata(number));
        }
        for path in &self.kept {
            assert!(self.files.contains_key(path), "{path:?}");
        }
    }

    fn config_digest(&self, number: u32) -> String {
        digest(image(number).config().to_string().as_bytes())
    }

    /// A copy of the home, and the lease of an operation on it.
    pub(crate) fn copy(&self) -> (Home, File) {
        let home = self.home.copy();
        for name in home.files("vmdk") {
            let path = home.cache().join("vmdk").join(name);
            let content =
                replaced(&fs::read(&path).expect("a descriptor"), &self.home.cache(), &home.cache());
            fs::write(&path, content).expect("a descriptor");
        }
        let lease = home.lease("fsmeta", &self.leased);
        (home, lease)
    }
}

fn metadata(number: u32) -> PathBuf {
    metadata_of(&reference(number))
}

/// The metadata file of a reference.
pub(crate) fn metadata_of(reference: &str) -> PathBuf {
    let key = digest(reference.as_bytes());
    Path::new("manifests").join(format!("{}.json", &key[7..]))
}

/// Lets sandboxes and a snapshot use images.
fn use_images(home: &Home) {
    let manifest =
        |number| format!("(SELECT manifest_id FROM image_ref WHERE reference = '{}')", reference(number));
    home.execute(&format!(
        "INSERT INTO sandbox (id, name, config, status) VALUES (1, 'one', '{{}}', 'stopped'),
             (2, 'two', '{{}}', 'running'), (3, 'three', '{{\"image\":{{\"reference\":\"{}\"}}}}', 'stopped');
         INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode)
             VALUES (1, {}, 'layered'), (2, {}, 'layered'), (3, NULL, 'layered');
         INSERT INTO snapshot_index (digest, name, scope, state_kind, image_ref, image_manifest_digest, artifact_path,
                                     created_at, indexed_at)
             SELECT 'snapshot', 'base', 'managed', 'disk', '', digest, 'x', '2026-01-01 00:00:00', '2026-01-01 00:00:00'
               FROM manifest WHERE id = {};",
        reference(CONFIG),
        manifest(SANDBOX),
        manifest(FORCED),
        manifest(SNAPSHOT),
    ));
}

/// Puts into the home what interrupted work and other people leave. Returns the name of the entry that is to be held, the
/// files that nothing owns, and the files that are nobody's.
fn damage(home: &Home) -> (String, BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let leased = home.texts(&format!(
        "SELECT digest FROM manifest JOIN image_ref ON manifest_id = manifest.id WHERE reference = '{}'",
        reference(LEASED)
    ));
    let leased = name_of(leased.first().expect("a manifest")) + ".erofs";
    let lost = format!("sha256_{}", "e".repeat(64));
    home.execute(&format!(
        "DELETE FROM image_ref WHERE reference = '{}';
         INSERT INTO layer (diff_id, blob_digest) VALUES ('{}', 'x');",
        reference(UNREACHED),
        lost.replace('_', ":")
    ));
    let cache = home.cache();
    fs::copy(cache.join(metadata(SANDBOX)), cache.join(metadata(ALIAS))).expect("metadata");
    let layer = home.files("layers").into_iter().next().expect("a layer");
    let image = fs::read(cache.join("layers").join(layer)).expect("an image");
    fs::write(cache.join(format!("layers/{lost}.erofs")), &image).expect("a layer");
    let stem = format!("sha256_{}", "f".repeat(64));
    let hex = "f".repeat(64);
    for directory in ["flat/refs", "flat/blobs", "flat/locks", &format!("tmp/{stem}.work")] {
        fs::create_dir_all(cache.join(directory)).expect("a directory");
    }
    fs::write(cache.join(format!("flat/locks/{stem}.lock")), "").expect("a lock");
    let record =
        format!(r#"{{"schema":1,"manifest_digest":"sha256:{hex}","artifact_digest":"sha256:{hex}"}}"#);
    let orphans = [
        (format!("layers/{stem}.erofs"), image.clone()),
        (format!("layers/{stem}.tar.gz"), image.clone()),
        (format!("fsmeta/{stem}.erofs"), image.clone()),
        (format!("vmdk/{stem}.vmdk"), b"# Disk DescriptorFile".to_vec()),
        (format!("manifests/{hex}.json"), b"{}".to_vec()),
        (format!("flat/refs/{stem}.json"), record.into_bytes()),
        (format!("flat/blobs/{stem}.raw"), image.clone()),
        (format!("tmp/{stem}.erofs.part"), image.clone()),
        (format!("tmp/{stem}.work/part"), image.clone()),
        ("tmp/load-1-2-3.blob".to_owned(), image.clone()),
    ];
    let foreign = [("layers/notes.txt", b"notes".to_vec()), ("tmp/thesis", b"thesis".to_vec())];
    let foreign = foreign.map(|(name, content)| (name.to_owned(), content));
    let put = |files: &[(String, Vec<u8>)]| -> BTreeSet<PathBuf> {
        for (name, content) in files {
            fs::write(cache.join(name), content).expect("a file");
        }
        files.iter().map(|(name, _)| PathBuf::from(name)).collect()
    };
    let mut orphans = put(&orphans);
    orphans.insert(metadata(UNREACHED));
    (leased, orphans, put(&foreign))
}

/// What is in the home beside cache and index.
const OUTSIDE: [&str; 3] = ["sandboxes/one/disk", "snapshots/base/memory", "volumes/data"];

fn outside(home: &Home) {
    for path in OUTSIDE {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, "not of the cache").expect("a file");
    }
}

/// Returns whether what is in the home beside cache and index is as it was.
pub(crate) fn is_outside_untouched(home: &Home) -> bool {
    OUTSIDE.iter().all(|path| fs::read(home.path().join(path)).is_ok_and(|text| text == b"not of the cache"))
}

/// Every file of a cache but locks, relative to it, with its content.
pub(crate) fn files_of(cache: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    each_file(cache, |path| {
        // Descriptors name the files that they join by where these lie.
        let content = replaced(&fs::read(path).expect("a file"), cache, Path::new("CACHE"));
        files.insert(path.strip_prefix(cache).expect("a path of the cache").to_owned(), content);
    });
    files
}

/// A content with another path in it.
fn replaced(content: &[u8], from: &Path, to: &Path) -> Vec<u8> {
    match std::str::from_utf8(content) {
        Ok(text) => text.replace(from.to_str().expect("UTF-8"), to.to_str().expect("UTF-8")).into_bytes(),
        Err(_) => content.to_vec(),
    }
}

/// The allocated bytes of all files of a cache but locks, hard links counted once, and of the directories of work.
pub(crate) fn allocated(cache: &Path) -> u64 {
    let (mut bytes, mut seen) = (0, BTreeSet::new());
    let mut add = |path: &Path| {
        let metadata = path.symlink_metadata().expect("a file");
        bytes += if seen.insert(metadata.ino()) { metadata.blocks() * 512 } else { 0 };
    };
    each_file(cache, &mut add);
    let entries = fs::read_dir(cache.join("tmp")).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.is_dir()).for_each(|path| add(&path));
    bytes
}

/// Returns whether a file is the cache's own, and no artifact: a lock, and the marker that says whose it is.
fn is_of_cache(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock") || path.ends_with(".larder-home")
}

fn each_file(directory: &Path, mut visit: impl FnMut(&Path)) {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if !is_of_cache(&path) {
                visit(&path);
            }
        }
    }
}
