//! The picture of the README.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_tests::{FIXTURE_NOW, Home, ImageSpec, Users, populate, run};

use crate::browser::picture_of;
use crate::harness::TestEnvironment;
use crate::page::{check, insert_samples, page, write_jobs};

/// The variable that names the file that the picture is written to, by `cargo xtask page`.
const PICTURE: &str = "LARDER_PAGE_PICTURE";

/// A file system in memory. Drop unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "larder-page"]).arg(&at);
        assert!(mount.status().expect("mount runs").success(), "only root can make the picture");
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The picture of the README is of a page of a host whose disk fills up.
#[test]
fn picture() {
    let Some(to) = std::env::var_os(PICTURE).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return;
    };
    let test = TestEnvironment::missing();
    let _disk = Disk::mount(test.home.path(), "1536m");
    run(async { test.home.open().await });
    let now = FIXTURE_NOW.parse().expect("a time");
    populate(&test.home.path(), now, &host());
    grow(&test.home);
    allocate(&test.home.path().join("other.img"), 420 << 20);
    insert_samples(&test.home, 14);
    write_jobs(&test, "20%", "40%");
    for jobs in ["--due", "nightly", "pressure"] {
        let ran = test.larder(&format!("job run {jobs} --file jobs.toml"));
        assert!([0, 1].contains(&ran.status), "{ran}");
    }
    let path = page(&test, "--file jobs.toml");
    let text = fs::read_to_string(&path).expect("the page");
    let home = test.home.path().display().to_string();
    fs::write(&path, text.replace(&home, "/var/lib/microsandbox")).expect("the page");
    check(&path);
    // Beside the page, since a sandboxed browser may not write elsewhere.
    let made = path.with_file_name("page.png");
    picture_of(&path, &made, 1120, 1500);
    let bytes = fs::metadata(&made).expect("the picture").len();
    assert!(bytes < 200_000, "{bytes} bytes");
    fs::copy(&made, &to).expect("the picture is written");
}

/// The images of the picture: some repositories with many tags, on three bases.
fn host() -> Vec<ImageSpec> {
    let repositories: [(&str, u32, u32); 11] = [
        ("acme/shop", 9, 0),
        ("acme/worker", 7, 0),
        ("acme/billing", 5, 1),
        ("acme/agent", 6, 1),
        ("acme/search", 4, 2),
        ("acme/docs", 3, 2),
        ("library/python", 4, 1),
        ("library/postgres", 3, 0),
        ("library/node", 3, 2),
        ("library/redis", 2, 0),
        ("library/alpine", 2, 0),
    ];
    let mut images = Vec::new();
    for (place, (repository, tags, base)) in (0_u32..).zip(repositories) {
        for tag in 0..tags {
            let number = place * 100 + tag;
            let age_days = i64::from((tags - tag) * 6);
            images.push(ImageSpec {
                reference: format!("docker.io/{repository}:{}", tag + 1),
                manifest: number,
                layers: vec![90_000 + base, 10_000 + place, 20_000 + number],
                users: if tag + 1 == tags && place % 3 != 2 { Users::Sandbox } else { Users::None },
                age_days,
                unused_days: age_days - 1,
            });
        }
    }
    images
}

/// Makes the layers as large as those of a host, in proportion to the disk.
fn grow(home: &Home) {
    for name in home.files("layers") {
        let number = name.trim_start_matches("sha256_d").trim_end_matches(".erofs");
        let number = u64::from_str_radix(number, 16).expect("a number of a layer");
        let kib = match number {
            90_000.. => 42_000,
            20_000.. => 6_000 + number * 7_919 % 11_000,
            _ => 9_000 + number * 6_007 % 9_000,
        };
        allocate(&home.cache().join("layers").join(&name), kib << 10);
    }
}

/// Makes a file so large.
fn allocate(path: &Path, bytes: u64) {
    let file = fs::File::options().create(true).truncate(false).write(true).open(path).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("its size");
}
