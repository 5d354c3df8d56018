//! Compiled code is kept on disk: found again, by everybody, and never trusted further than it deserves.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::policy::{CodeOrigin, GrantDocument, Limits, Policy, PolicyEngine, PolicyError, PolicyRun};
use larder::snapshot::MemoryCache;
use larder_tests::{guest, run};
use tempfile::TempDir;

/// A directory for a code cache, which does not exist yet.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("deep/code")
    }

    /// A new engine, as in a new process.
    fn engine(&self) -> PolicyEngine {
        PolicyEngine::builder().code_cache(self.path()).build().expect("an engine")
    }

    fn load(&self) -> CodeOrigin {
        let policy = run(Policy::load(&self.engine(), guest(""))).expect("a policy");
        let policy_run = PolicyRun::new(chrono::DateTime::UNIX_EPOCH);
        run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run)).expect("a plan");
        policy.code_origin()
    }

    fn warm(&self) -> Result<CodeOrigin, PolicyError> {
        run(self.engine().warm(guest(""), &Limits::default()))
    }

    fn entries(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path()) else { return Vec::new() };
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    /// The only entry.
    fn entry(&self) -> PathBuf {
        let entries = self.entries();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// What one engine compiled another one finds, and only its owner can write where it lies.
#[test]
fn code_is_compiled_once() {
    let directory = Directory::new();
    assert_eq!(directory.load(), CodeOrigin::Compiled);
    assert_eq!(directory.load(), CodeOrigin::Cached);
    assert_eq!((mode(&directory.path()), mode(&directory.entry())), (0o700, 0o600));
    assert_eq!(directory.warm().expect("a cache"), CodeOrigin::Cached);
}

/// Another component, and other limits that are compiled in, have entries of their own.
#[test]
fn entries_are_told_apart() {
    let directory = Directory::new();
    directory.load();
    let other = guest("(global $other i32 (i32.const 1))");
    assert_eq!(
        run(Policy::load(&directory.engine(), other)).expect("a policy").code_origin(),
        CodeOrigin::Compiled
    );
    let fuel = Limits::default().with_fuel(1_000_000);
    let warm = || run(directory.engine().warm(guest(""), &fuel)).expect("a cache");
    assert_eq!((warm(), warm()), (CodeOrigin::Compiled, CodeOrigin::Cached));
    assert_eq!(directory.entries().len(), 3);
}

/// What is not a policy leaves nothing in the cache.
#[test]
fn only_policies_are_kept() {
    let directory = Directory::new();
    let other_types = larder_tests::hostile_guest("other-types");
    run(Policy::load(&directory.engine(), &other_types[..])).expect_err("no policy");
    run(directory.engine().warm(other_types, &Limits::default())).expect_err("no policy");
    assert_eq!(directory.entries(), Vec::<PathBuf>::new());
}

/// An entry that was cut off anywhere, has one changed byte anywhere, or is that of another component is compiled
/// anew and replaced.
#[test]
fn damaged_entries_are_replaced() {
    let directory = Directory::new();
    directory.load();
    let whole = fs::read(directory.entry()).expect("the entry");
    let mut damages =
        vec![Vec::new(), whole[1..].to_vec(), [&whole[..], b"x"].concat(), vec![0; whole.len()]];
    damages.extend([1, 50, 100, 101, 4096, whole.len() / 2].map(|cut| whole[..whole.len() - cut].to_vec()));
    damages.extend((0..whole.len()).step_by(whole.len() / 20).chain([whole.len() - 1]).map(|place| {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        changed
    }));
    let other = Directory::new();
    run(Policy::load(&other.engine(), guest("(global $other i32 (i32.const 1))"))).expect("a policy");
    damages.push(fs::read(other.entry()).expect("the entry"));
    for (number, damage) in damages.into_iter().enumerate() {
        fs::write(directory.entry(), &damage).expect("the entry");
        assert_eq!(directory.load(), CodeOrigin::Compiled, "damage {number}");
        assert_eq!(directory.load(), CodeOrigin::Cached, "damage {number} was mended");
    }
}

/// A directory, or an entry, that somebody else could have written is not used, and whoever wants to fill it is told
/// why.
#[test]
fn what_others_can_write_is_not_trusted() {
    let directory = Directory::new();
    directory.load();
    chmod(&directory.path(), 0o770);
    assert_eq!(directory.load(), CodeOrigin::Compiled);
    assert_eq!(
        directory.warm().expect_err("not trusted").to_string(),
        format!(
            "the code cache `{}` cannot be used: others than its owner can write to it: `chmod go-w` it",
            directory.path().display()
        )
    );
    chmod(&directory.path(), 0o700);
    chmod(&directory.entry(), 0o620);
    assert_eq!(directory.load(), CodeOrigin::Compiled);

    let real = directory.path().with_file_name("real");
    fs::rename(directory.path(), &real).expect("moved");
    symlink(&real, directory.path()).expect("a link");
    assert_eq!(directory.load(), CodeOrigin::Compiled, "a link is not followed");

    let linked = Directory::new();
    linked.load();
    let aside = linked.0.path().join("aside");
    let entry = linked.entry();
    fs::rename(&entry, &aside).expect("moved");
    symlink(&aside, &entry).expect("a link");
    assert_eq!(linked.load(), CodeOrigin::Compiled, "a link is not followed");
    assert!(entry.symlink_metadata().expect("an entry").is_file(), "and an entry took its place");
}

/// A directory of another user is not used.
#[test]
fn other_users_are_not_trusted() {
    let directory = Directory::new();
    directory.load();
    if std::os::unix::fs::chown(directory.path(), Some(65534), None).is_err() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    assert_eq!(directory.load(), CodeOrigin::Compiled);
    assert!(directory.warm().expect_err("not trusted").to_string().ends_with("it belongs to another user"));
}

/// Where there can be no directory, policies are compiled, and whoever wants to fill it is told why.
#[test]
fn a_file_in_the_way() {
    let directory = Directory::new();
    fs::create_dir(directory.path().parent().expect("above")).expect("a directory");
    File::create(directory.path()).expect("a file");
    assert_eq!(directory.load(), CodeOrigin::Compiled);
    assert!(directory.warm().expect_err("no directory").to_string().contains("Not a directory"));
    let none = run(PolicyEngine::new().expect("an engine").warm(guest(""), &Limits::default()));
    assert!(none.expect_err("no cache").to_string().contains("has no code cache"));
}

/// A cache on a read-only disk is read, and what it lacks is compiled.
#[test]
fn a_read_only_cache_is_read() {
    struct Mount(PathBuf);
    impl Drop for Mount {
        fn drop(&mut self) {
            // Left mounted, the directory could not be removed, which the test's end would show.
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let directory = Directory::new();
    directory.load();
    let path = directory.path();
    let mount = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).arg(&path).status().expect("mount").success());
    };
    mount(&["--bind", path.to_str().expect("a path")]);
    let _mounted = Mount(path.clone());
    mount(&["-o", "remount,bind,ro"]);
    assert_eq!(directory.load(), CodeOrigin::Cached);
    let other = guest("(global $other i32 (i32.const 1))");
    assert_eq!(
        run(Policy::load(&directory.engine(), &other[..])).expect("a policy").code_origin(),
        CodeOrigin::Compiled
    );
    let error = run(directory.engine().warm(other, &Limits::default())).expect_err("read-only").to_string();
    assert!(error.contains("Read-only file system"), "{error}");
}

/// Writers and readers of one entry at the same time never meet half of it, and leave one entry.
#[test]
fn many_at_once() {
    let directory = Directory::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..3).for_each(|_| _ = directory.load()));
        }
        scope.spawn(|| {
            for _ in 0..20 {
                directory.entries().into_iter().for_each(|entry| _ = fs::remove_file(entry));
                std::thread::yield_now();
            }
        });
    });
    directory.load();
    assert_eq!(directory.load(), CodeOrigin::Cached);
    assert_eq!(directory.entries().len(), 1);
}

/// A run under a grant that counts fuel is compiled for it, once on a host.
#[test]
fn runs_with_fuel_use_the_cache() {
    let directory = Directory::new();
    let grant = GrantDocument::default().with_limits(Limits::default().with_fuel(1_000_000));
    let policy_run = PolicyRun::new(chrono::DateTime::UNIX_EPOCH).with_grant(grant);
    for entries in [2, 2] {
        let policy = run(Policy::load(&directory.engine(), guest(""))).expect("a policy");
        run(policy.evaluate(Box::new(MemoryCache::new([])), &policy_run)).expect("a plan");
        assert_eq!(directory.entries().len(), entries);
    }
}
