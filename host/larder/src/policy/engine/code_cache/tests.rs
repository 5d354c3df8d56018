use std::os::fd::OwnedFd;

use super::*;

/// What was not read for longest goes first, until the rest fits; what was just written stays, however large.
#[test]
fn old_entries_are_evicted() {
    let temporary = tempfile::tempdir().expect("a directory");
    let path = temporary.path();
    let names = || {
        let entries = std::fs::read_dir(path).expect("the directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    };
    for (name, bytes, seconds) in [("old", 100, 1), ("older", 100, 0), ("new", 100, 3), ("written", 100, 2)] {
        std::fs::write(path.join(name), vec![0; bytes]).expect("a file");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let file = File::options().write(true).open(path.join(name)).expect("the file");
        file.set_modified(time).expect("its time");
    }
    let directory = OwnedFd::from(File::open(path).expect("the directory"));
    let evict = |capacity| super::evict(&directory, "written", capacity).expect("evicted");
    evict(400);
    assert_eq!(names(), ["new", "old", "older", "written"]);
    evict(399);
    assert_eq!(names(), ["new", "old", "written"]);
    evict(150);
    assert_eq!(names(), ["written"]);
    evict(0);
    assert_eq!(names(), ["written"]);
}
