//! What a terminal shows of long work.

use larder_tests::Terminal;
use larder_tests::archive::{Item, TestImage, docker_files, layer, tar_of};

use crate::harness::TestEnvironment;

/// While images are loaded, each layer has a bar with what is being done, and all of them have one with a rate; in the
/// end the bars are gone, and what was loaded is there with a summary.
#[test]
fn bars_come_and_go() {
    let test = TestEnvironment::made();
    let sizes = [300_000, 200_000, 1];
    let layers = sizes.map(|size| layer(&[Item::File("file", &vec![7; size])]));
    let image = TestImage::new(&["acme/app:1"], layers.into());
    test.write("image.tar", tar_of(&docker_files(std::slice::from_ref(&image))));
    // The smallest layer comes last, and waits: the screen stands still when the others are done.
    let [large, middle, small] = &image.diff_ids()[..] else { panic!("three layers") };
    let lock = test.home.making("layers", &format!("{}.erofs", small.replace(':', "_")));
    let mut terminal = Terminal::start(test.command("load image.tar"));
    let total = "491.50 KiB/491.50 KiB";
    let screen = terminal.wait_for(|screen| {
        screen.matches("done in").count() == 2 && screen.contains("waiting") && screen.contains(total)
    });
    let lines: Vec<&str> = screen.lines().collect();
    let [note, bars @ .., last] = &lines[..] else { panic!("too little:\n{screen}") };
    let name = |digest: &str| digest["sha256:".len()..][..12].to_owned();
    assert_eq!(*note, format!("layer {}: waiting for another process that makes it", name(small)));
    assert_eq!(bars.len(), 2, "{screen}");
    for name in [large, middle].map(|digest| name(digest)) {
        let line = bars.iter().find(|line| line.starts_with(&name)).expect("a bar");
        assert!(line.contains('█') && line.ends_with("/s)"), "{screen}");
    }
    assert!(last.contains("total █") && last.ends_with("/s"), "{screen}");
    drop(lock);
    let (status, screen) = terminal.end();
    assert_eq!(status.code(), Some(0), "{screen}");
    assert!(!screen.contains("total") && !screen.contains('█'), "{screen}");
    assert!(screen.contains("docker.io/acme/app:1"), "{screen}");
    assert!(
        screen.lines().last().is_some_and(|line| line.starts_with("1 image: 3 new layers, ")),
        "{screen}"
    );
}

/// An error stands where the bars were.
#[test]
fn errors_take_the_place_of_bars() {
    let test = TestEnvironment::made();
    let bad = layer(&[Item::File("fine", &[7; 300_000]), Item::File("../escape", b"x")]);
    test.write("image.tar", tar_of(&docker_files(&[TestImage::new(&["acme/app:1"], vec![bad])])));
    let (status, screen) = Terminal::start(test.command("load image.tar")).end();
    assert_eq!(status.code(), Some(1), "{screen}");
    assert!(screen.starts_with("error: `image.tar`, layer `sha256:"), "{screen}");
    assert!(!screen.contains("total"), "{screen}");
}
