//! A home that is not as it should be is read where it can be, and changed only where that is safe; each refusal says
//! what was found.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use larder::{Image, LocalBackend};
use larder_tests::{Home, run};

/// How many images are listed, or why not.
fn list(home: &Home) -> Result<usize, String> {
    run(async {
        let local = LocalBackend::builder()
            .home(home.path())
            .existing()
            .build()
            .await
            .map_err(|error| error.to_string())?;
        Image::list_local(&local).await.map(|images| images.len()).map_err(|error| error.to_string())
    })
}

/// Whether a change is let through, or why not.
fn change(home: &Home) -> Result<(), String> {
    run(async {
        let local = home.open().await;
        Image::remove_local(&local, "docker.io/acme/app00004:v7", false)
            .await
            .map_err(|error| error.to_string())
    })
}

/// A refused change leaves the home as it was, and readable.
fn assert_refused(home: &Home, expected: &str) {
    let before = home.texts("SELECT reference FROM image_ref");
    let message = change(home).expect_err("refused");
    assert!(message.contains(expected), "{message}");
    assert!(message.contains(&home.path().display().to_string()), "{message}");
    assert_eq!(home.texts("SELECT reference FROM image_ref"), before);
    assert_eq!(home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
    assert_eq!(list(home), Ok(41));
}

/// What is not a home is told apart: nothing there, a file, a directory without an index, a damaged index.
#[test]
fn what_is_no_home() {
    let home = Home::missing();
    assert!(list(&home).expect_err("no home").contains("does not exist"));
    fs::write(home.path(), "x").expect("a file");
    assert!(list(&home).expect_err("a file").contains("is not a directory"));
    fs::remove_file(home.path()).expect("gone");
    fs::create_dir_all(home.path().join("stuff")).expect("a directory");
    assert!(list(&home).expect_err("no index").contains("is not a microsandbox home"));
    fs::create_dir_all(home.path().join("db")).expect("a directory");
    fs::write(home.path().join("db/msb.db"), vec![b'x'; 8192]).expect("a file");
    assert!(list(&home).expect_err("damaged").contains("damaged index"));
}

/// An index of something else is refused with the table or column that it lacks.
#[test]
fn an_index_of_something_else() {
    let home = Home::made();
    home.execute("ALTER TABLE manifest DROP COLUMN total_size_bytes");
    let message = list(&home).expect_err("another schema");
    assert!(message.contains("cannot read: no such column: manifest.total_size_bytes"), "{message}");
}

/// A home that does not exist is made, with modes that microsandbox asks for, unless that is refused.
#[test]
fn a_missing_home_is_made() {
    let home = Home::made();
    assert_eq!(list(&home), Ok(0));
    let mode = |path: &str| fs::metadata(home.path().join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("db"), mode("db/msb.db")), (0o700, 0o700, 0o600));
    assert_eq!(home.count("SELECT count(*) FROM seaql_migrations"), 33);
    run(async { Image::prune_local(&home.open().await).await }).expect("an empty home pruned");
}

/// A directory in which microsandbox was installed and never ran is a home to be made, and so is one whose maker was
/// killed; any other directory is left as it is.
#[test]
fn homes_that_were_begun() {
    type Begin = fn(&Path);
    let table: [(Begin, bool); 8] = [
        (|home| fs::create_dir_all(home.join("bin")).unwrap(), true),
        (
            |home| ["bin", "lib", "db"].iter().for_each(|name| fs::create_dir_all(home.join(name)).unwrap()),
            true,
        ),
        (
            |home| {
                fs::create_dir(home.join("bin")).unwrap();
                fs::write(home.join("config.json"), "{}").unwrap();
            },
            true,
        ),
        (
            |home| {
                fs::create_dir(home.join("db")).unwrap();
                fs::write(home.join("db/msb.db"), "").unwrap();
                fs::write(home.join("db/msb.db.migration.lock"), "").unwrap();
            },
            true,
        ),
        (|home| fs::write(home.join("config.json"), "{}").unwrap(), false),
        (|home| fs::write(home.join("letter"), "x").unwrap(), false),
        (
            |home| {
                fs::create_dir(home.join("db")).unwrap();
                fs::write(home.join("db/postgres"), "x").unwrap();
            },
            false,
        ),
        // The log of an index that was moved away.
        (
            |home| {
                fs::create_dir(home.join("db")).unwrap();
                fs::write(home.join("db/msb.db-wal"), "x").unwrap();
            },
            false,
        ),
    ];
    for (number, (begin, made)) in table.into_iter().enumerate() {
        for write in [false, true] {
            let home = Home::missing();
            fs::create_dir(home.path()).unwrap();
            begin(&home.path());
            let names = || fs::read_dir(home.path()).unwrap().count();
            let before = (home.everything(), names());
            let local = LocalBackend::builder().home(home.path()).build_lazy().unwrap();
            let message = run(async {
                if write {
                    return local.unpin("docker.io/acme/none:1").await.unwrap_err().to_string();
                }
                match Image::list_local(&local).await {
                    Ok(images) => format!("{} images", images.len()),
                    Err(error) => error.to_string(),
                }
            });
            drop(local);
            if made {
                assert!(
                    message.contains("0 images") || message.contains("image not found"),
                    "{number}: {message}"
                );
                assert_eq!(home.count("SELECT count(*) FROM seaql_migrations"), 33);
            } else {
                assert!(message.contains("is not a microsandbox home"), "{number}: {message}");
                assert_eq!((home.everything(), names()), before, "{number}");
            }
        }
    }
}

/// Half a home never exists: a process that is killed while it makes one leaves none, and the next makes it.
#[test]
fn a_killed_maker() {
    let home = Home::missing();
    for failpoint in larder::failpoint::HOME_NAMES {
        assert!(home.crash(env!("CARGO_BIN_EXE_larder-crash"), "prune", "", failpoint, 1));
        assert!(!home.path().join("db/msb.db").exists());
        assert!(list(&home).expect_err("no home").contains("is not a microsandbox home"));
    }
    run(async { Image::prune_local(&home.open().await).await }).expect("the home made");
    assert_eq!(list(&home), Ok(0));
}

/// Every history but that of microsandbox 0.7.13 is read and not changed.
#[test]
fn other_histories() {
    let table = [
        (
            "INSERT INTO seaql_migrations VALUES ('m20991231_000001_future', 0)",
            "newer microsandbox (`m20991231_000001_future`)",
        ),
        (
            "DELETE FROM seaql_migrations WHERE version = 'm20260531_000001_create_sandbox_labels'",
            "lacks `m20260531_000001_create_sandbox_labels`",
        ),
        ("DELETE FROM seaql_migrations WHERE version > 'm20260901'", "26 of 33 migrations"),
        ("DELETE FROM seaql_migrations", "without migration history"),
        ("DROP TABLE seaql_migrations", "without migration history"),
    ];
    for (statement, expected) in table {
        let home = Home::fixture();
        home.execute(statement);
        assert_refused(&home, expected);
    }
}

/// A live installation is waited out by whoever wants to write; one that ended, or whose process did, is none.
#[test]
fn installations() {
    let lease = |process: u32, expires: &str| {
        let home = Home::fixture();
        home.execute(&format!(
            "UPDATE maintenance_lease SET holder_pid = {process}, lease_expires_at = '{expires}' WHERE name = 'install_exclusive'"
        ));
        home
    };
    assert_refused(
        &lease(std::process::id(), "2099-01-01 00:00:00"),
        &format!("by process {}", std::process::id()),
    );
    assert_eq!(change(&lease(std::process::id(), "2020-01-01 00:00:00")), Ok(()));
    let mut ended = Command::new("true").spawn().expect("a process");
    ended.wait().expect("its end");
    assert_eq!(change(&lease(ended.id(), "2099-01-01 00:00:00")), Ok(()));
}

/// A downgrade that was begun and not finished stops every change, a finished one does not.
#[test]
fn downgrades() {
    let without_end = format!(r#"{{"phase":"complete"{}}}"#, " ".repeat(1 << 20));
    for (journal, refused) in [
        (Some(r#"{"phase":"copying"}"#), true),
        (Some("{"), true),
        (Some(without_end.as_str()), true),
        (None, true),
        (Some(r#"{"phase":"complete"}"#), false),
    ] {
        let home = Home::fixture();
        let operation = home.path().join("db/self-downgrade/op1");
        fs::create_dir_all(&operation).expect("a directory");
        if let Some(journal) = journal {
            fs::write(operation.join("journal.json"), journal).expect("a journal");
        }
        if refused {
            assert_refused(&home, "in the middle of a microsandbox downgrade");
        } else {
            assert_eq!(change(&home), Ok(()));
        }
    }
}

/// An index that belongs to somebody else, or that has another name, is read and not changed.
#[test]
fn files_that_are_not_ours() {
    let home = Home::fixture();
    let database = home.path().join("db/msb.db");
    fs::hard_link(&database, home.path().join("db/other")).expect("a link");
    assert_refused(&home, "has a second name");

    let home = Home::fixture();
    let elsewhere = home.path().join("elsewhere");
    fs::rename(home.path().join("db"), &elsewhere).expect("moved");
    symlink(&elsewhere, home.path().join("db")).expect("a link");
    assert_refused(&home, "is a symbolic link");

    if rustix::process::geteuid().is_root() {
        let home = Home::fixture();
        std::os::unix::fs::chown(home.path().join("db/msb.db"), Some(12345), None).expect("given away");
        assert_refused(&home, "belongs to another user");
    }
}

/// Reading waits for nobody who writes, and writes nothing: not even Larder's own tables.
#[test]
fn reading_under_a_write_lock() {
    let home = Home::fixture();
    let index = home.index();
    index.execute_batch("BEGIN IMMEDIATE; DELETE FROM image_ref").expect("a transaction");
    assert_eq!(list(&home), Ok(41));
    index.execute_batch("ROLLBACK").expect("its end");
    assert_eq!(home.count("SELECT count(*) FROM sqlite_master WHERE name LIKE 'larder_%'"), 0);
}

/// Who cannot get the index for five seconds says that it is busy.
#[test]
fn writing_under_a_write_lock() {
    let home = Home::fixture();
    let index = home.index();
    index.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
    let message = change(&home).expect_err("busy");
    assert!(message.contains("is busy"), "{message}");
}

/// A home on a read-only file system is listed, with a log of changes beside the index and without, and its changes
/// are refused. Only root can make such a file system here.
#[test]
fn a_read_only_home() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    for with_log in [false, true] {
        let home = Home::fixture();
        let index = home.index();
        if with_log {
            index
                .execute_batch("PRAGMA wal_autocheckpoint = 0; DELETE FROM image_ref WHERE id = 1")
                .expect("a change");
            let log = home.path().join("db/msb.db-wal");
            let copy = fs::read(&log).expect("the log");
            drop(index);
            fs::write(&log, copy).expect("the log, left behind");
        } else {
            drop(index);
        }
        let mount = ReadOnly::mount(&home);
        assert_eq!(list(&home), Ok(if with_log { 40 } else { 41 }), "with a log: {with_log}");
        let message = change(&home).expect_err("read-only");
        assert!(message.contains("is read-only"), "{message}");
        drop(mount);
    }
}

struct ReadOnly(std::path::PathBuf);

impl ReadOnly {
    fn mount(home: &Home) -> Self {
        let path = home.path();
        let mount = |arguments: &[&str]| {
            assert!(Command::new("mount").args(arguments).arg(&path).status().expect("mount").success());
        };
        mount(&["--bind", path.to_str().expect("a path")]);
        mount(&["-o", "remount,bind,ro"]);
        Self(path)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // Left mounted, the directory could not be removed, which the test's end would show.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
