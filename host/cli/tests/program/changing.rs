//! Commands that remove, pin and repair: what they show, what they do, and what they refuse.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use larder_tests::judge::has_tools;
use larder_tests::{images_on_one_base, populate, run};

use crate::harness::TestEnvironment;

/// Images go by name; what is not there or in use is said, and the rest goes all the same.
#[test]
fn rm() {
    let test = TestEnvironment::fixture();
    assert_output!(
        "rm",
        test.larder("rm acme/app00004:v7"),
        test.larder("rm acme/app00004:v7 docker.io/acme/app00004:v7 nope acme/app00000:v0 --yes"),
        test.larder("rm acme/app00004:v7 --yes"),
        test.larder("rm acme/app00004:v6 --yes --format json"),
        test.larder("rm acme/app00000:v0 --yes --format json"),
        test.larder("rm acme/app00000:v0 --yes --force"),
        test.larder("rm a//b --yes -q"),
        test.larder("history"),
    );
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 38);
}

/// A pinned image goes only with force, and its pin with it; one that a live operation holds does not go at all, and
/// keeps its pin.
#[test]
fn rm_of_what_is_pinned_or_held() {
    let test = TestEnvironment::fixture();
    test.larder("pin acme/app00004:v7 acme/app00004:v6");
    let digest = "sha256_a000000000000000000000000000000000000000000000000000000000000026";
    let lease = test.home.lease("fsmeta", &format!("{digest}.erofs"));
    assert_output!(
        "rm_pinned",
        test.larder("rm acme/app00004:v7 --yes"),
        test.larder("rm acme/app00004:v7 acme/app00004:v6 --yes --force"),
        test.larder("ls acme/app00004 --sort reference"),
    );
    drop(lease);
}

/// A cache that is marked as another home's is claimed after a yes, and both the question and the refusal name that home.
#[test]
fn claiming_the_cache_of_another_home() {
    let (test, other) = (TestEnvironment::fixture(), TestEnvironment::made());
    let own = test.larder("verify --claim-cache");
    assert!(own.stderr.contains("is this home's cache now"), "{}", own.stderr);
    let settings = serde_json::json!({ "paths": { "cache": test.home.cache() } });
    fs::write(other.home.path().join("config.json"), settings.to_string()).expect("the settings");
    let refused = other.larder("verify --claim-cache");
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    let marker = || fs::read_to_string(test.home.cache().join(".larder-home")).expect("a marker");
    let before = marker();
    let claimed = other.larder("verify --claim-cache --yes");
    assert!(claimed.stderr.contains("is marked as that of the home"), "{}", claimed.stderr);
    assert!(before.contains(&test.home.path().display().to_string()) && marker() != before);
}

/// Where the disk of the cache is not mounted, a prune refuses, says what to do, and forgets no image.
#[test]
fn a_cache_that_is_not_there() {
    let test = TestEnvironment::fixture();
    fs::rename(test.home.cache(), test.home.path().join("away")).expect("moved");
    for arguments in ["prune --yes", "prune --dry-run", "rm acme/app00004:v7 --yes"] {
        let refused = test.larder(arguments);
        assert_eq!(refused.status, 1, "{arguments}");
        assert!(refused.stderr.contains("is not there: mount the disk"), "{arguments}: {}", refused.stderr);
        assert!(refused.stderr.contains("`larder verify --claim-cache`"), "{arguments}: {}", refused.stderr);
    }
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
    fs::rename(test.home.path().join("away"), test.home.cache()).expect("moved back");
    assert_eq!(test.larder("prune --yes").status, 0);
}

/// What a command writes takes the place of nothing in the home.
#[test]
fn nothing_is_written_into_the_home() {
    let test = TestEnvironment::fixture();
    let before = fs::read(test.home.path().join("db/msb.db")).expect("the index");
    let home = test.home.path();
    for name in ["db/msb.db", "larder.toml", "cache/layers/x"] {
        let path = home.join(name);
        for arguments in ["prune --plan", "save acme/app00004:v7 -o"] {
            let refused = test.larder(&format!("{arguments} {}", path.display()));
            assert_eq!(refused.status, 2, "{arguments} {name}: {}", refused.stderr);
            assert!(refused.stderr.contains("write it elsewhere") && refused.stdout.is_empty(), "{refused}");
        }
    }
    assert!(!home.join("larder.toml").exists());
    assert_eq!(fs::read(home.join("db/msb.db")).expect("the index"), before);
}

/// Removing one image takes as many looks at files and as many reads of the index among many images as among few.
#[test]
fn rm_of_one_among_many() {
    if !has_tools(&["strace"]) {
        return;
    }
    let [few, many] = [30, 1500].map(calls_to_remove_one);
    assert!(few > 50, "the calls were counted: {few}");
    assert!(many <= few + few / 5, "{few} calls among 30 images, {many} among 1500");
}

/// The calls of the system that look at files, list directories or read the index while one image of so many is removed.
fn calls_to_remove_one(images: u32) -> usize {
    let test = TestEnvironment::made();
    let reference = |number: u32| format!("docker.io/acme/app{number:05}:v1");
    let specs = images_on_one_base(images);
    populate(&test.home.path(), larder_tests::FIXTURE_NOW.parse().expect("a time"), &specs);
    // The first change of a home adds Larder's own tables and indexes, and the first changes record how its images were
    // used before, as many of them as a short time allows.
    assert_eq!(test.larder(&format!("rm {} --yes", reference(1))).status, 0);
    run(async { test.home.open().await.record_uses().await }).expect("the uses are on record");
    let trace = test.directory().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=%file,getdents64,pread64", "-o"])
        .args([&trace, Path::new(env!("CARGO_BIN_EXE_larder"))])
        .arg("--home")
        .arg(test.home.path())
        .args(["--now", larder_tests::FIXTURE_NOW, "rm", "--yes", &reference(7)])
        .output()
        .expect("strace ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), i64::from(images) - 2);
    test.read("trace").lines().count()
}

/// Pins are set and taken away, and each change is said.
#[test]
fn pins() {
    let test = TestEnvironment::fixture();
    assert_output!(
        "pins",
        test.larder("pin acme/app00004:v7 nope acme/app00004:v6"),
        test.larder("pin acme/app00004:v7 --format json"),
        test.larder("ls acme/app00004:v7"),
        test.larder("unpin acme/app00004:v7"),
        test.larder("unpin acme/app00004:v7 nope --format json"),
    );
}

/// Damage ends with status 1, waste of space with status 0; a repair deletes what it showed.
#[test]
fn verify() {
    let test = TestEnvironment::made();
    let clean = test.larder("verify");
    let directory = test.home.cache().join("layers");
    fs::create_dir_all(&directory).expect("the directory");
    let digits = "ab".repeat(32);
    let orphan = directory.join(format!("sha256_{digits}.erofs"));
    fs::write(&orphan, "x").expect("a file");
    let old = larder_tests::FIXTURE_NOW.parse::<chrono::DateTime<chrono::Utc>>().expect("a time");
    let old = SystemTime::from(old) - Duration::from_secs(86_400);
    fs::File::options().write(true).open(&orphan).expect("the file").set_modified(old).expect("its time");
    assert_output!(
        "verify",
        clean,
        test.larder("verify"),
        test.larder("verify --format json"),
        test.larder("verify --repair"),
        test.larder("verify --repair --yes"),
        test.larder("verify --repair --yes --format json"),
    );
    assert!(!orphan.exists());

    let test = TestEnvironment::fixture();
    let layer = fs::read_dir(test.home.cache().join("layers")).expect("layers");
    let layer = layer.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).min();
    fs::remove_file(layer.expect("a layer")).expect("removed");
    let damaged = test.larder("verify");
    assert_eq!(damaged.status, 1);
    assert!(damaged.stdout.lines().any(|line| line.starts_with("missing")), "{damaged}");
}

/// A plain prune shows what nothing uses, and removes that: what microsandbox's prune removes.
#[test]
fn prune() {
    let test = TestEnvironment::fixture();
    assert_output!("prune_dry_run", test.larder("prune --dry-run"));
    assert_output!(
        "prune_refused",
        test.larder("prune"),
        test.larder("prune --format json"),
        test.larder("prune --yes --dry-run"),
        test.larder("prune --config keep=2"),
    );
    let planned = test.larder("prune --dry-run --format json");
    assert_eq!((planned.status, planned.stderr.as_str()), (0, ""));
    let written = test.larder("prune --plan plan.json --format json");
    let document = test.read_as_said("plan.json");
    assert_eq!(planned.stdout, document);
    assert_eq!(written.stdout, document);
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);

    let pruned = test.larder("prune --yes --format json");
    assert_eq!((pruned.status, pruned.stderr.as_str()), (0, ""));
    let report = pruned.json();
    assert_eq!(report["report"]["image_refs_removed"], 38);
    assert_eq!(report["report"]["manifests_removed"], 37);
    assert_eq!(report["report"]["layers_removed"], 222);
    assert_eq!(report["report"]["fsmeta_removed"], 37);
    assert_eq!(report["report"]["vmdk_removed"], 37);
    assert_eq!(report["report"]["bytes_reclaimed"], planned.json()["bytes"]);
    let count = |key: &str| report[key].as_array().map(Vec::len);
    assert_eq!([count("removed"), count("spared"), count("kept")], [Some(38), Some(0), Some(3)]);
    assert_output!(
        "prune_again",
        test.larder("prune --yes"),
        test.larder("prune --dry-run"),
        test.larder("ls")
    );
}

/// What was shown to a person is what is removed, and the person is told how much that was.
#[test]
fn prune_for_people() {
    let test = TestEnvironment::fixture();
    test.larder("pin acme/app00004:v7");
    assert_output!("prune", test.larder("prune --yes"), test.larder("prune --yes -q"));
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 4);
}

/// Where few files can be open at once, fewer than the limit promises, a prune takes smaller steps and removes as much.
#[test]
fn prune_with_few_descriptors() {
    let test = TestEnvironment::fixture();
    prune_after(&test, "ulimit -n 64; for i in {1..26}; do exec {fd}</dev/null; done");
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 3);
    assert_eq!(test.home.files("fsmeta").len(), 3);
}

/// Manifests that no reference names, of more layers than files can be open at once, go like any other.
#[test]
fn prune_many_layers_with_few_descriptors() {
    let test = TestEnvironment::fixture();
    let numbers =
        |end: u32| format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {end})");
    test.home.execute(&format!(
        "{} INSERT INTO manifest (id, digest, layer_count)
             SELECT 500 + i, printf('sha256:b%063x', i), NULL FROM n;
         {} INSERT INTO layer (id, diff_id, blob_digest) SELECT 5000 + i, printf('sha256:c%063x', i), 'x' FROM n;
         INSERT INTO manifest_layer (manifest_id, layer_id, position)
             SELECT 500 + (id - 5000) / 60, id, (id - 5000) % 60 FROM layer WHERE id >= 5000;",
        numbers(19),
        numbers(1199),
    ));
    prune_after(&test, "ulimit -n 256");
    assert_eq!(test.home.count("SELECT count(*) FROM manifest"), 3);
    assert_eq!(test.home.count("SELECT count(*) FROM layer"), 18);
}

/// Prunes after a shell has run this.
fn prune_after(test: &TestEnvironment, script: &str) {
    let script = format!(r#"{script}; exec "$0" --home "$1" --now 2026-11-24T12:00:00Z prune --yes --quiet"#);
    let status = std::process::Command::new("bash")
        .args(["-c", &script])
        .arg(env!("CARGO_BIN_EXE_larder"))
        .arg(test.home.path())
        .env_clear()
        .status()
        .expect("the program started");
    assert!(status.success(), "{status}");
}

/// Rows whose files are lost are shown and removed like others, though that frees nothing.
#[test]
fn prune_lost_rows() {
    let test = TestEnvironment::fixture();
    assert_eq!(test.larder("prune --yes").status, 0);
    let digest = format!("sha256:{}", "e".repeat(64));
    test.home.execute(&format!("INSERT INTO layer (diff_id, blob_digest) VALUES ('{digest}', 'x')"));
    let planned = test.larder("prune --dry-run --format json").json();
    assert_eq!(planned["unreached"][0]["digest"], digest.as_str());
    let pruned = test.larder("prune --yes --format json");
    assert_eq!((pruned.status, &pruned.json()["report"]["layers_removed"]), (0, &1.into()));
    assert_eq!(test.home.count("SELECT count(*) FROM layer WHERE blob_digest = 'x'"), 0);
}

/// A plan takes the place of an earlier plan and of nothing else.
#[test]
fn plans_replace_plans() {
    let test = TestEnvironment::fixture();
    for content in ["a letter", "{\"version\": 2}", "\u{0}"] {
        test.write("letter", content);
        let refused = test.larder("prune --plan letter");
        assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{refused}");
        assert!(refused.stderr.contains("`letter` is there and is not a plan"), "{refused}");
        assert_eq!(test.read("letter"), content);
    }
    test.write("plan.json", "");
    for _ in 0..2 {
        let written = test.larder("prune --plan plan.json");
        assert_eq!(written.status, 0, "{written}");
    }
    assert_eq!(test.larder("prune --plan /dev/null").status, 0);
}

/// Where others use the cache as well, a plan that removes images says that their files go for the others, too, and the
/// report of what the cache takes names what a prune leaves.
#[test]
fn caches_of_several_homes() {
    let (test, other) = (TestEnvironment::fixture(), TestEnvironment::made());
    test.larder("verify --claim-cache");
    let own = test.larder("prune --dry-run");
    assert!(!own.stderr.contains("homes"), "{own}");
    let settings = serde_json::json!({ "paths": { "cache": test.home.cache() } });
    fs::write(other.home.path().join("config.json"), settings.to_string()).expect("the settings");
    let image = larder_tests::archive::TestImage::small(&["acme/other:1"]);
    other.write("image.tar", larder_tests::archive::tar_of(&larder_tests::archive::docker_files(&[image])));
    assert_eq!(other.larder("load image.tar").status, 0);
    for (test, arguments) in [
        (&test, "prune --dry-run"),
        (&test, "prune"),
        (&test, "prune --plan plan.json"),
        (&test, "apply plan.json"),
        (&test, "rm acme/app00004:v7 --yes"),
        (&other, "prune --dry-run"),
    ] {
        let said = test.larder(arguments);
        assert!(
            said.stderr
                .contains("is used by several homes: files that go with these images go for other homes"),
            "{said}"
        );
    }
    let usage = other.larder("df");
    assert!(usage.stdout.contains("files that may be another home's"), "{usage}");
    let usage = other.larder("df --format json").json();
    assert!(usage["uncollected"]["files"].as_u64() > Some(100), "{usage}");
}

/// A cache that is a symbolic link to what is not there cannot be claimed, and the message says so and what to do.
#[test]
fn claiming_a_link_that_leads_nowhere() {
    let test = TestEnvironment::fixture();
    fs::rename(test.home.cache(), test.home.path().join("away")).expect("moved");
    std::os::unix::fs::symlink("/nowhere/cache", test.home.cache()).expect("a link");
    let refused = test.larder("verify --claim-cache --yes");
    assert_eq!(refused.status, 1, "{refused}");
    let said = "it is a symbolic link to `/nowhere/cache`, which is not there: mount the disk that has it";
    assert!(refused.stderr.contains(said) && !refused.stderr.contains("File exists"), "{refused}");
}

/// A prune that finishes what a killed one began says how many files and bytes that were, also where nothing else is to go.
#[test]
fn finishing_a_killed_removal() {
    use std::os::unix::fs::MetadataExt as _;
    let test = TestEnvironment::fixture();
    assert_eq!(test.larder("prune --yes").status, 0);
    let name = format!("sha256_{}.erofs", "ab".repeat(32));
    for format in ["human", "json"] {
        let path = test.home.cache().join("layers").join(&name);
        fs::write(&path, [7; 5000]).expect("a file");
        let file = fs::metadata(&path).expect("the file");
        let born = file.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let born = born.map_or("NULL".to_owned(), |born| born.as_nanos().to_string());
        let modified = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
        let cache = test.home.cache().canonicalize().expect("the cache");
        test.home.execute(&format!(
            "INSERT INTO larder_deletion (cache, room, name, inode, size, modified_ns, born_ns)
             VALUES ('{}', 'layers', '{name}', {}, 5000, {modified}, {born})",
            cache.display(),
            file.ino()
        ));
        let pruned = test.larder(&format!("prune --yes --format {format}"));
        assert_eq!(pruned.status, 0, "{pruned}");
        assert!(!path.exists());
        if format == "human" {
            let said =
                "nothing to remove; an earlier removal that was cut short was finished: 1 file, 8.0 KiB\n";
            assert_eq!(pruned.stdout, said);
        } else {
            assert_eq!(pruned.json()["recovered"], serde_json::json!({ "bytes": 8192, "files": 1 }));
        }
    }
}
