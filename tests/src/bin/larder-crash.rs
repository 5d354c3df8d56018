//! Does one thing to a home and ends without clean-up at a named point, for the tests of recovery.
//!
//! `larder-crash HOME remove|force|prune|load REFERENCE|ARCHIVE FAILPOINT NTH`

use larder::{Image, LocalBackend};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, operation, reference, failpoint, nth] = arguments.as_slice() else {
        panic!("five arguments, not {arguments:?}");
    };
    larder::failpoint::abort_at(failpoint, nth.parse().expect("a number"));
    larder_tests::run(async {
        let local = LocalBackend::builder().home(home).build().await.expect("the home opened");
        match operation.as_str() {
            "remove" => Image::remove_local(&local, reference, false).await.expect("removed"),
            "force" => Image::remove_local(&local, reference, true).await.expect("removed"),
            "prune" => drop(Image::prune_local(&local).await.expect("pruned")),
            "load" => drop(Image::load_local(&local, reference.as_ref(), Vec::new()).await.expect("loaded")),
            other => panic!("no operation `{other}`"),
        }
    });
}
