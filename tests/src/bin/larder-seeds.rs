//! Writes the seeds of each fuzz target to `DIRECTORY/TARGET/`, for `cargo xtask fuzz`.
//!
//! `larder-seeds DIRECTORY`

use std::fs;
use std::path::PathBuf;

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [directory] = arguments.as_slice() else { panic!("one argument, not {arguments:?}") };
    for (target, seeds) in larder_tests::seeds::seeds() {
        let directory = directory.join(target);
        fs::create_dir_all(&directory).expect("a directory");
        for (name, bytes) in seeds {
            fs::write(directory.join(name), bytes).expect("a file");
        }
    }
}
