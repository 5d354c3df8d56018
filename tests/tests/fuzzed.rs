//! What fuzzing found stays fixed, and what it begins with is worth it.

#[path = "../fuzz/src/checks/mod.rs"]
pub mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use checks::{TARGETS, Verdict};
use larder_tests::seeds::seeds;

/// What fuzzing found once gives an error or is taken, whichever it is.
#[test]
fn regressions() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let mut left: BTreeSet<String> = fs::read_dir(&directory)
        .expect("the regressions")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    for (target, check) in TARGETS {
        if !left.remove(target) {
            continue;
        }
        for entry in fs::read_dir(directory.join(target)).expect("its regressions") {
            let path = entry.expect("an entry").path();
            eprintln!("{}", path.display());
            check(&fs::read(&path).expect("a file"));
        }
    }
    assert_eq!(left, BTreeSet::new(), "regressions of targets that are not there");
}

/// Every target has seeds, and takes all of them: fuzzing begins behind the first check that bytes have to pass.
#[test]
fn seeds_are_taken() {
    let seeds = seeds();
    assert_eq!(seeds.keys().copied().collect::<Vec<_>>(), TARGETS.map(|(target, _)| target));
    for (target, check) in TARGETS {
        assert!(seeds[target].len() >= 5, "{target}");
        for (name, bytes) in &seeds[target] {
            assert_eq!(check(bytes), Verdict::Taken, "{target} {name}");
        }
    }
}
