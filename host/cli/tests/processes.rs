//! Many programs on one home lose no image, remove none that is busy, and leave nothing that was free: they load, remove,
//! prune, apply and list, while sandboxes come and go as microsandbox makes them.
//!
//! A few rounds are run; with `LARDER_FAULTS=all`, as `cargo xtask faults` has it, a minute of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use chrono::{TimeDelta, Utc};
use larder_tests::Home;
use larder_tests::archive::{Item, TestImage, docker_files, layer, tar_of};
use tempfile::TempDir;

/// The images that everybody loads, removes and uses.
const SHARED: usize = 8;

/// When a program stops to begin another one.
#[derive(Debug, Clone, Copy)]
enum Until {
    Rounds(usize),
    Time(Instant),
}

impl Until {
    fn is_over(self, rounds: usize) -> bool {
        match self {
            Self::Rounds(wanted) => rounds >= wanted,
            Self::Time(end) => Instant::now() >= end,
        }
    }
}

fn rounds_or_a_minute(rounds: usize) -> Until {
    match env::var("LARDER_FAULTS") {
        Ok(_) => Until::Time(Instant::now() + Duration::from_secs(60)),
        Err(_) => Until::Rounds(rounds),
    }
}

/// What programs share, and what became of it.
struct Stage {
    home: Home,
    /// Archives and plans.
    beside: TempDir,
    until: Until,
    is_over: AtomicBool,
    /// When sandboxes began to use an image, and when they had ended: their names.
    sandboxes: Mutex<BTreeMap<String, (Instant, Option<Instant>)>>,
    /// How often each command ended with each status.
    ended: Mutex<BTreeMap<(&'static str, i32), usize>>,
}

/// Numbers that look like chance and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// An image of a layer that all have, one that half of them have, and one of its own.
fn image(name: &str, number: usize) -> TestImage {
    let content = |name: &str| layer(&[Item::File(name, &[b'x'; 5000])]);
    let layers = vec![content("base"), content(&format!("half{}", number % 2)), content(name)];
    TestImage::new(&[&reference(name)], layers)
}

fn reference(name: &str) -> String {
    format!("docker.io/acme/{name}:1")
}

fn shared(number: usize) -> String {
    format!("shared{number}")
}

fn own(program: usize) -> String {
    format!("own{program}")
}

impl Stage {
    fn new(programs: usize, until: Until) -> Self {
        let stage = Self {
            home: Home::made(),
            beside: tempfile::tempdir().expect("a directory"),
            until,
            is_over: AtomicBool::new(false),
            sandboxes: Mutex::default(),
            ended: Mutex::default(),
        };
        for (number, name) in (0..SHARED).map(shared).chain((0..programs).map(own)).enumerate() {
            let archive = tar_of(&docker_files(&[image(&name, number)]));
            fs::write(stage.beside.path().join(format!("{name}.tar")), archive).expect("an archive");
        }
        stage
    }

    /// Runs the program. Ends the test where it does not end as it may.
    fn larder(&self, arguments: &str, may: &[i32]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_larder"))
            .env_clear()
            .args(arguments.split_whitespace())
            .args(["--format", "json", "--home"])
            .arg(self.home.path())
            .current_dir(self.beside.path())
            .stdin(Stdio::null())
            .output()
            .expect("the program started");
        let status = output.status.code().expect("it ended by itself");
        assert!(
            may.contains(&status),
            "`{arguments}` ended with {status}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        let command = ["load", "rm", "prune", "apply", "ls", "df", "pin", "verify"]
            .into_iter()
            .find(|command| arguments.starts_with(command))
            .expect("a command that is counted");
        *self.ended.lock().expect("counts").entry((command, status)).or_default() += 1;
        output
    }

    /// One program after another, with an image of its own that stays.
    fn work(&self, program: usize) {
        let mut random = Random(program as u64 + 1);
        let own = own(program);
        // Until it is pinned, others may remove it.
        loop {
            self.larder(&format!("load {own}.tar"), &[0]);
            if self.larder(&format!("pin {}", reference(&own)), &[0, 3]).status.success() {
                break;
            }
        }
        let mut rounds = 0;
        while !self.until.is_over(rounds) {
            rounds += 1;
            let name = shared(random.below(SHARED));
            match random.below(9) {
                0..3 => drop(self.larder(&format!("load {name}.tar"), &[0])),
                3 | 4 => drop(self.larder(&format!("rm {} --yes", reference(&name)), &[0, 3, 4])),
                5 => self.prune("prune --yes"),
                6 => {
                    self.larder(&format!("prune --plan plan{program}.json"), &[0]);
                    self.prune(&format!("apply plan{program}.json --yes"));
                }
                // What others are about to finish or to remove is no damage.
                7 => drop(self.larder("verify", &[0])),
                _ => drop(self.larder("df", &[0])),
            }
            let list = self.larder("ls", &[0]).stdout;
            assert!(String::from_utf8_lossy(&list).contains(&reference(&own)), "{own} was lost");
            self.check_whole(&reference(&own));
        }
    }

    /// Removes what is free. What is spared for a sandbox is spared for one that was there.
    fn prune(&self, arguments: &str) {
        let begun = Instant::now();
        let report: serde_json::Value =
            serde_json::from_slice(&self.larder(arguments, &[0, 7]).stdout).expect("a report");
        let sandboxes = self.sandboxes.lock().expect("the sandboxes");
        for image in report["spared"].as_array().expect("what was spared") {
            let reason = image["reason"].as_str().expect("a reason");
            let Some(names) = reason.strip_prefix("used by sandbox") else {
                let others =
                    ["held by a live operation", "names another manifest", "was used after", "pinned"];
                assert!(others.iter().any(|other| reason.starts_with(other)), "{image}");
                continue;
            };
            let was_there = sandboxes.iter().any(|(name, (_, end))| {
                names.contains(&format!("`{name}`")) && end.is_none_or(|end| end >= begun)
            });
            assert!(was_there, "{image}");
        }
        // A layer that images share and that somebody holds stays by itself, and is named.
        for problem in report["problems"].as_array().expect("what stood in the way") {
            let problem = problem.as_str().expect("a sentence");
            assert!(problem.ends_with("is held by a live operation: left for the next prune"), "{problem}");
        }
    }

    /// The files of an image.
    fn files(&self, reference: &str) -> Option<Vec<(&'static str, String)>> {
        let named = format!("SELECT manifest_id FROM image_ref WHERE reference = '{reference}'");
        let digest = self.home.texts(&format!("SELECT digest FROM manifest WHERE id IN ({named})"));
        let name = digest.first()?.replace(':', "_");
        let layers = self.home.texts(&format!(
            "SELECT diff_id FROM layer JOIN manifest_layer ON layer_id = layer.id WHERE manifest_id IN ({named})"
        ));
        let mut files = vec![("fsmeta", format!("{name}.erofs")), ("vmdk", format!("{name}.vmdk"))];
        files.extend(layers.iter().map(|layer| ("layers", format!("{}.erofs", layer.replace(':', "_")))));
        Some(files)
    }

    /// Checks that an image that stays has all of its files.
    fn check_whole(&self, reference: &str) {
        let files = self.files(reference).unwrap_or_else(|| panic!("`{reference}` was lost"));
        assert_eq!(files.len(), 5, "{reference}");
        for (room, name) in files {
            assert!(
                self.home.cache().join(room).join(&name).exists(),
                "{room}/{name} of `{reference}` was lost"
            );
        }
    }

    /// Makes sandboxes and takes them away again, as microsandbox does: an image is held until the rows of the sandbox are
    /// in the index, and is whole for as long as they are there.
    fn use_images(&self) {
        let mut random = Random(77);
        let mut number = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let image = shared(random.below(SHARED));
            if let Some(leases) = self.hold(&reference(&image)) {
                number += 1;
                self.live(number, &reference(&image), leases);
            }
            thread::yield_now();
        }
        assert!(number > 0, "no sandbox found an image");
    }

    /// Holds an image that is there, unless somebody is about to delete it.
    fn hold(&self, reference: &str) -> Option<Vec<File>> {
        let files = self.files(reference)?;
        let leases: Option<Vec<File>> =
            files.iter().map(|(room, name)| self.home.try_lease(room, name)).collect();
        let there = files.iter().all(|(room, name)| self.home.cache().join(room).join(name).exists());
        // What was there before it was held may be gone.
        leases.filter(|_| there && self.files(reference).as_ref() == Some(&files))
    }

    fn live(&self, number: usize, reference: &str, leases: Vec<File>) {
        let name = format!("sandbox{number}");
        self.sandboxes.lock().expect("the sandboxes").insert(name.clone(), (Instant::now(), None));
        self.home.execute(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO sandbox (id, name, config, status) VALUES ({number}, '{name}', '{{}}', 'running');
             INSERT INTO sandbox_rootfs (sandbox_id, manifest_id, mode)
                 SELECT {number}, manifest_id, 'layered' FROM image_ref WHERE reference = '{reference}';
             COMMIT;"
        ));
        let roots = format!("SELECT count(*) FROM sandbox_rootfs WHERE sandbox_id = {number}");
        assert_eq!(self.home.count(&roots), 1, "`{reference}` was removed while it was held");
        drop(leases);
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(10));
            self.check_whole(reference);
        }
        self.home.execute(&format!(
            "BEGIN IMMEDIATE; DELETE FROM sandbox_rootfs WHERE sandbox_id = {number};
             DELETE FROM sandbox WHERE id = {number}; COMMIT;"
        ));
        let mut sandboxes = self.sandboxes.lock().expect("the sandboxes");
        sandboxes.get_mut(&name).expect("the sandbox").1 = Some(Instant::now());
    }

    /// When all is over: nothing is damaged, and a last prune leaves the images that are pinned, and nothing else.
    fn check(&self, programs: usize) {
        for pragma in ["integrity_check", "foreign_key_check"] {
            let said = self.home.texts(&format!("SELECT * FROM pragma_{pragma}"));
            assert!(said.iter().all(|said| said == "ok"), "{pragma}: {said:?}");
        }
        let report = self.larder("verify --deep", &[0]).stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("a report");
        assert_eq!(report["findings"], serde_json::json!([]));
        let later = (Utc::now() + TimeDelta::days(3)).to_rfc3339();
        self.larder(&format!("prune --yes --now {later}"), &[0]);
        let left: BTreeSet<String> = (0..programs).map(|program| reference(&own(program))).collect();
        assert_eq!(self.home.texts("SELECT reference FROM image_ref"), left);
        assert_eq!(self.home.count("SELECT count(*) FROM larder_deletion"), 0);
        let layers = self.home.count("SELECT count(*) FROM layer") as usize;
        let rooms = ["layers", "fsmeta", "vmdk", "manifests", "tmp"];
        let files = rooms.map(|room| self.home.files(room).len());
        assert_eq!(files, [layers, programs, programs, programs, 0]);
        left.iter().for_each(|reference| self.check_whole(reference));
    }
}

fn share(programs: usize, until: Until) {
    let stage = Stage::new(programs, until);
    thread::scope(|scope| {
        let sandboxes = scope.spawn(|| stage.use_images());
        let programs: Vec<_> = (0..programs)
            .map(|program| {
                scope.spawn({
                    let stage = &stage;
                    move || stage.work(program)
                })
            })
            .collect();
        let ended: Vec<_> = programs.into_iter().map(|program| program.join()).collect();
        stage.is_over.store(true, Ordering::Relaxed);
        sandboxes.join().expect("sandboxes keep their images");
        ended.into_iter().for_each(|ended| ended.expect("programs keep theirs"));
    });
    stage.check(programs);
    let sandboxes = stage.sandboxes.lock().expect("the sandboxes").len();
    println!("{programs} programs, {sandboxes} sandboxes: {:?}", stage.ended.lock().expect("counts"));
}

/// Two programs at a time do each other and sandboxes no harm.
#[test]
fn two() {
    share(2, rounds_or_a_minute(16));
}

/// Nor do eight.
#[test]
fn eight() {
    share(8, rounds_or_a_minute(6));
}
