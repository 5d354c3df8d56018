//! A backend that is kept open sees what others make of its home: replaced, migrated, changed behind a read-only mount.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use larder::failpoint::call_at;
use larder::maintenance::{FindingKind, VerifyDepth};
use larder::{Image, LocalBackend};
use larder_tests::{FIXTURE_NOW, Home, images_on_one_base, populate, run};

const IMAGE: &str = "docker.io/acme/app00004:v7";

/// Puts the index of `backup` in the place of that of `home`, as whoever restores it does.
fn restore(home: &Home, backup: &Home) {
    for log in ["-wal", "-shm"] {
        let _ = fs::remove_file(home.path().join(format!("db/msb.db{log}")));
    }
    fs::rename(backup.path().join("db/msb.db"), home.path().join("db/msb.db")).expect("restored");
}

async fn count(local: &LocalBackend) -> usize {
    Image::list_local(local).await.expect("the images").len()
}

/// Who waits for the writer, and gets it when the home has been changed by `statement`, is told why it must not write.
fn refused_after(statement: &str) -> String {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        local.pin(IMAGE).await.expect("pinned");
        let index = home.index();
        index.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
        let change = tokio::spawn({
            let local = local.clone();
            async move { local.unpin(IMAGE).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        index.execute_batch(statement).expect("a change");
        index.execute_batch("COMMIT").expect("its end");
        let error = change.await.expect("its end").expect_err("refused");
        assert_eq!(home.count("SELECT count(*) FROM larder_pin"), 1);
        error.to_string()
    })
}

/// An index that was replaced is read and changed, and not the file that had its name before: no file of it is lost.
#[test]
fn a_replaced_index() {
    let (home, backup) = (Home::fixture(), Home::fixture());
    run(async {
        let local = home.open().await;
        local.unpin(IMAGE).await.expect("the writer opened");
        restore(&home, &backup);
        Image::prune_local(&local).await.expect("pruned");
    });
    assert_eq!(home.count("SELECT count(*) FROM image_ref"), 3);
    let report = run(async { home.open().await.verify(VerifyDepth::Shallow).await });
    let report = report.expect("a report");
    let lost: Vec<_> =
        report.findings.iter().filter(|finding| finding.kind == FindingKind::Missing).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// An index that is replaced in the middle of a removal loses nothing: no file that it owns goes, and nothing is recorded in it.
#[test]
fn an_index_replaced_meanwhile() {
    for point in ["removal.claimed", "removal.recorded", "removal.committed", "removal.released"] {
        let (home, backup) = (Arc::new(Home::made()), Home::made());
        for home in [&*home, &backup] {
            populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &images_on_one_base(300));
            drop(run(async { home.open().await.unpin("docker.io/acme/app00000:v1").await }));
        }
        let restored = Arc::clone(&home);
        call_at(point, move || restore(&restored, &backup));
        let error = run(async { Image::prune_local(&home.open().await).await }).expect_err("refused");
        assert!(chain(&error).contains("has another index than a moment ago"), "{point}: {}", chain(&error));
        assert_eq!(home.count("SELECT count(*) FROM image_ref"), 300, "{point}");
        assert_eq!(home.count("SELECT count(*) FROM larder_decision"), 0, "{point}");
        let report = run(async { home.open().await.verify(VerifyDepth::Shallow).await }).expect("a report");
        let missing = report.findings.iter().filter(|finding| finding.kind == FindingKind::Missing).count();
        // What went before is gone: the index was replaced after a whole batch.
        assert_eq!(missing == 0, point != "removal.released", "{point}: {missing}");
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Readers see the index that was put in the place of theirs, and a home that was made again.
#[test]
fn a_replaced_index_is_read() {
    let (home, backup) = (Home::fixture(), Home::fixture());
    backup.execute("DELETE FROM image_ref WHERE id <= 5");
    run(async {
        let local = home.open().await;
        assert_eq!(count(&local).await, 41);
        restore(&home, &backup);
        assert_eq!(count(&local).await, 36);
        fs::remove_dir_all(home.path()).expect("the home is gone");
        assert_eq!(count(&local).await, 0);
        local.pin(IMAGE).await.expect_err("no image");
    });
}

/// A home that was migrated while a change waited for its turn is not changed, nor one whose Larder tables
/// are newer.
#[test]
fn a_home_that_is_migrated_meanwhile() {
    let message = refused_after("INSERT INTO seaql_migrations VALUES ('m20991231_000001_future', 0)");
    assert!(message.contains("newer microsandbox (`m20991231_000001_future`)"), "{message}");
    let message = refused_after("INSERT INTO larder_schema VALUES (99)");
    assert!(message.contains("newer larder"), "{message}");
}

/// A downgrade or an installation that begins while a backend is open stops its changes.
#[test]
fn a_downgrade_and_an_installation() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        local.pin(IMAGE).await.expect("pinned");
        let operation = home.path().join("db/self-downgrade/op1");
        fs::create_dir_all(&operation).expect("a directory");
        let message = local.unpin(IMAGE).await.expect_err("refused").to_string();
        assert!(message.contains("in the middle of a microsandbox downgrade"), "{message}");
        fs::remove_dir_all(&operation).expect("the end of the downgrade");
        home.execute(&format!(
            "UPDATE maintenance_lease SET holder_pid = {}, lease_expires_at = '2099-01-01 00:00:00'
              WHERE name = 'install_exclusive'",
            std::process::id()
        ));
        let message = local.unpin(IMAGE).await.expect_err("refused").to_string();
        assert!(message.contains("is being installed"), "{message}");
        // microsandbox installs for a moment each time that it starts.
        home.execute("UPDATE maintenance_lease SET holder_pid = NULL WHERE name = 'install_exclusive'");
        local.unpin(IMAGE).await.expect("changed");
    });
}

/// Changes that wait for their turn take no thread from anybody: a runtime has 512 that may block.
#[test]
fn waiting_changes_take_no_thread() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        local.pin(IMAGE).await.expect("pinned");
        let index = home.index();
        index.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
        let changes: Vec<_> = (0..520)
            .map(|_| {
                let local = local.clone();
                tokio::spawn(async move { local.pin(IMAGE).await })
            })
            .collect();
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let others = tokio::time::timeout(Duration::from_secs(2), async {
            tokio::task::spawn_blocking(|| fs::metadata("/")).await.expect("its end").expect("a directory");
            count(&local).await
        });
        assert_eq!(others.await, Ok(41));
        index.execute_batch("ROLLBACK").expect("its end");
        for change in changes {
            change.await.expect("its end").expect("pinned");
        }
    });
}

/// A prune whose future is dropped leaves no image half gone, and the next change of the same backend finishes it.
#[test]
fn a_dropped_prune() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let prune = tokio::spawn({
            let local = local.clone();
            async move { Image::prune_local(&local).await }
        });
        while home.count("SELECT count(*) FROM image_ref") == 41 {
            tokio::task::yield_now().await;
        }
        prune.abort();
        let _ = prune.await;
        local.pin("docker.io/acme/app00000:v0").await.expect("pinned");
        assert_eq!(home.count("SELECT count(*) FROM larder_deletion"), 0);
        let report = local.verify(VerifyDepth::Shallow).await.expect("a report");
        let wrong = report
            .findings
            .iter()
            .filter(|finding| matches!(finding.kind, FindingKind::Missing | FindingKind::Orphan));
        assert_eq!(wrong.count(), 0, "{:?}", report.findings);
        let went = 41 - home.count("SELECT count(*) FROM image_ref");
        let removed = home.count("SELECT count(*) FROM larder_decision WHERE decision = 'removed'");
        assert_eq!(went, removed);
    });
}

/// A home behind a read-only mount is read as it is, whatever changes it from elsewhere. Only root can mount here.
#[test]
fn changes_behind_a_read_only_mount() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let home = Home::fixture();
    let mount = Mount::read_only(&home);
    run(async {
        let local =
            LocalBackend::builder().home(mount.0.path()).existing().build().await.expect("the home opened");
        assert_eq!(count(&local).await, 41);
        home.execute("DELETE FROM image_ref WHERE id = 1");
        assert_eq!(count(&local).await, 40);
        // A log that its writer left behind.
        let index = home.index();
        let statements = "PRAGMA wal_autocheckpoint = 0; DELETE FROM image_ref WHERE id = 2";
        index.execute_batch(statements).expect("a change");
        let log = home.path().join("db/msb.db-wal");
        let content = fs::read(&log).expect("the log");
        drop(index);
        fs::write(&log, content).expect("the log, left behind");
        assert_eq!(count(&local).await, 39);
        home.execute("DELETE FROM image_ref WHERE id = 3");
        assert_eq!(count(&local).await, 38);
    });
}

/// A directory through which a home is seen and cannot be changed.
struct Mount(tempfile::TempDir);

impl Mount {
    fn read_only(home: &Home) -> Self {
        let at = tempfile::tempdir().expect("a directory");
        let mount = |arguments: &[&str]| {
            assert!(Command::new("mount").args(arguments).status().expect("mount").success());
        };
        let (from, to) = (home.path(), at.path().to_str().expect("a path").to_owned());
        mount(&["--bind", from.to_str().expect("a path"), &to]);
        mount(&["-o", "remount,bind,ro", &to]);
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Left mounted, the directory could not be removed, which the test's end would show.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Dropping the last clone of a backend within a runtime leaves it to a thread that may block to close the home, which is
/// closed when the runtime ends.
#[test]
fn closing_blocks_no_runtime() {
    let home = Home::fixture();
    let log = home.path().join("db/msb.db-wal");
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
    let (finish, finished) = std::sync::mpsc::channel();
    runtime.block_on(async {
        let local = home.open().await;
        local.pin(IMAGE).await.expect("pinned");
        // The only thread that may block is busy.
        tokio::task::spawn_blocking(move || finished.recv());
        drop(local);
    });
    assert!(log.exists(), "the log was not written into the database yet");
    finish.send(()).expect("it waits");
    drop(runtime);
    assert!(!log.exists(), "it was");
}
