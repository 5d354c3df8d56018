//! The page of a home: what is in it, and what a browser makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::job::JobFile;
use larder_tests::judge::has_tools;
use larder_tests::{FIXTURE_NOW, Home, images_on_one_base, populate, run};
use rusqlite::params;

use crate::browser::{Scheme, Seen, WIDTHS, look_at};
use crate::harness::TestEnvironment;

/// The elements of a page.
const TAGS: [&str; 37] = [
    "body",
    "br",
    "caption",
    "code",
    "dd",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "g",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "li",
    "line",
    "main",
    "meta",
    "p",
    "path",
    "rect",
    "section",
    "span",
    "style",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
];

const JOBS: &str = r#"
[jobs.nightly]
schedule = "30 3 * * *"
policy = "./keep-recent.wasm@DIGEST"
config = { keep = 2 }
grant = { remove = ["docker.io/acme/**"], max-share = "90%" }

[jobs.pressure]
when-free-below = "FROM"
until-free = "UNTIL"
policy = "./keep-recent.wasm@DIGEST"
config = { keep = 2 }
grant = { remove = ["docker.io/acme/**"], max-share = "90%" }
"#;

/// Puts a job file and its policy beside the home.
pub(crate) fn write_jobs(test: &TestEnvironment, from: &str, until: &str) {
    let policy = fs::read(test.directory().join(test.policy("keep-recent"))).expect("the policy");
    let digest = larder::reference::Digest::of(&policy).to_string();
    let text = JOBS.replace("DIGEST", &digest).replace("FROM", from).replace("UNTIL", until);
    JobFile::parse(&text).unwrap_or_else(|findings| panic!("{findings}"));
    test.write("jobs.toml", text);
}

/// Writes the page of a home into a directory of its own.
pub(crate) fn page(test: &TestEnvironment, arguments: &str) -> PathBuf {
    let directory = test.directory().join("page");
    fs::create_dir_all(&directory).expect("a directory");
    let output = test.larder(&format!("report -o page/report.html {arguments}"));
    assert_eq!((output.status, &*output.stdout), (0, ""), "{output}");
    directory.join("report.html")
}

/// Looks at a page on narrow and wide screens, light and dark: nothing is wider than the screen, loaded, run, said on the
/// console, too faint or too small to read, or without a name.
pub(crate) fn check(page: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(page).expect("the page");
    assert!(text.len() < 300_000, "{} bytes", text.len());
    let seen = [Scheme::Light, Scheme::Dark].map(|scheme| {
        let seen = look_at(page, scheme);
        assert!(seen.console.is_empty(), "{:#?}", seen.console);
        for (screen, width) in seen.screens.iter().zip(WIDTHS) {
            assert_eq!(screen["width"], width);
            assert_eq!(screen["dark"], scheme == Scheme::Dark);
            for nothing in ["too_wide", "handlers", "loaded", "nameless", "twice", "small"] {
                assert_eq!(screen[nothing], 0, "{nothing} at {width}: {screen:#}");
            }
            let contrast = screen["faint"]["ratio"].as_f64().expect("a number");
            assert!(contrast >= 4.5, "{width} {scheme:?}: {}", screen["faint"]);
            for tag in screen["tags"].as_array().expect("a list") {
                assert!(TAGS.iter().any(|known| tag == known), "an element `{tag}`");
            }
        }
        seen
    });
    let backs = seen.each_ref().map(|seen| seen.screens[0]["back"].clone());
    assert_ne!(backs[0], backs[1], "light and dark differ");
    seen.into()
}

/// The page of an empty home says what there is: nothing yet. It is written to standard output as well, and to no file of
/// another kind.
#[test]
fn of_an_empty_home() {
    let test = TestEnvironment::made();
    let path = page(&test, "");
    let text = fs::read_to_string(&path).expect("the page");
    for expected in ["The cache has no images.", "This home has no job file.", "No job has run yet."] {
        assert!(text.contains(expected), "{text}");
    }
    let printed = test.larder("report");
    assert!(printed.status == 0 && printed.stdout.starts_with("<!DOCTYPE html>"), "{printed}");
    test.write("notes.txt", "mine");
    let refused = test.larder("report -o notes.txt");
    assert!(refused.status == 2 && refused.stderr.contains("is not a page"), "{refused}");
    assert_eq!(test.larder("report -o home/page.html").status, 2);
    assert_eq!(test.larder("report --file nowhere.toml").status, 2);
    if has_tools(&["chromium"]) {
        check(&path);
    }
}

/// The page of a home with jobs has their bounds, their runs, what the last one decided and why, and what an unmet goal is
/// made of.
#[test]
fn of_a_home_with_jobs() {
    let test = TestEnvironment::fixture();
    write_jobs(&test, "99.9998%", "99.9999%");
    insert_samples(&test.home, 14);
    let ran = test.larder("job run pressure --file jobs.toml");
    assert_eq!(ran.status, 1, "its goal is out of reach: {ran}");
    let path = page(&test, "--file jobs.toml");
    let text = fs::read_to_string(&path).expect("the page");
    for expected in [
        "30 3 * * *",
        "its last run did not reach its goal",
        "What held the ",
        "in use by sandboxes and snapshots",
        "Job pressure, ",
        "begins above",
        "removed",
        "partial",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    }
    if has_tools(&["chromium"]) {
        let seen = check(&path);
        // The chart, the map and the bar; those for other screens are not shown.
        assert_eq!(seen[0].screens[0]["drawings"], 3);
        assert_eq!(seen[0].screens[1]["drawings"], 3);
    }
}

/// The page of a home with 10,000 images is as small as that of any home with many.
#[test]
fn of_a_home_with_many_images() {
    let test = TestEnvironment::made();
    populate(&test.home.path(), FIXTURE_NOW.parse().expect("a time"), &images_on_one_base(10_000));
    let path = page(&test, "");
    let text = fs::read_to_string(&path).expect("the page");
    assert!(text.contains("10000 images") && text.contains("9800 more are left out"), "{}", &text[..9000]);
    if has_tools(&["chromium"]) {
        check(&path);
    }
}

/// Names, reasons and problems that are markup are shown as text.
#[test]
fn markup_is_text() {
    const MARKUP: &str = "<b onmouseover=alert(1)>x</b><script>alert(1)</script>&\"'\u{202e}";
    let test = TestEnvironment::fixture();
    write_jobs(&test, "0.0001%", "0.0002%");
    assert_eq!(test.larder("job run nightly --file jobs.toml").status, 0);
    let index = test.home.index();
    let changed = [
        "UPDATE image_ref SET reference = ?1 WHERE id = (SELECT max(id) FROM image_ref)",
        "UPDATE larder_decision SET reason = ?1, reference = ?1
          WHERE (run_id, reference) = (SELECT run_id, reference FROM larder_decision WHERE decision = 'removed' LIMIT 1)",
        "UPDATE larder_job_run SET report = json_set(report, '$.problem', ?1, '$.notes', json_array(?1))",
    ]
    .map(|change| index.execute(change, params![MARKUP]).expect("a change"));
    assert_eq!(changed, [1, 1, 1]);
    let path = page(&test, "--file jobs.toml");
    let text = fs::read_to_string(&path).expect("the page");
    assert!(!text.contains("<script") && !text.contains("<b ") && !text.contains('\u{202e}'), "{text}");
    let escaped = text.matches("&lt;b onmouseover=alert(1)&gt;x&lt;/b&gt;&lt;script&gt;").count();
    assert!(escaped >= 4, "{escaped} in {text}");
    if has_tools(&["chromium"]) {
        let seen = check(&path);
        let shown = seen[0].screens[1]["text"].as_str().expect("a text");
        assert!(
            shown.matches("<b onmouseover=alert(1)>x</b><script>alert(1)</script>&\"'").count() >= 3,
            "{shown}"
        );
    }
}

/// A run leaves the metrics of the home in a file that everybody can read, whatever the umask, and nothing beside it. It
/// refuses to write into the home before it runs, and says so if it cannot write.
#[test]
fn textfile() {
    let test = TestEnvironment::fixture();
    write_jobs(&test, "0.0001%", "0.0002%");
    assert_eq!(test.larder("job run nightly --file jobs.toml --textfile home/larder.prom").status, 2);
    // What is no file of metrics stays what it is.
    test.write("notes.prom", "mine");
    for other in ["notes.prom", "metrics.txt", "/dev/null"] {
        let refused = test.larder(&format!("job run nightly --file jobs.toml --textfile {other}"));
        assert_eq!(refused.status, 2, "{refused}");
    }
    assert_eq!(test.read("notes.prom"), "mine");
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
    let larder = test.command("job run nightly --file jobs.toml --textfile metrics.prom");
    let mut sh = Command::new("sh");
    sh.args(["-c", "umask 077 && exec \"$0\" \"$@\""]).arg(larder.get_program()).args(larder.get_args());
    sh.current_dir(test.directory()).env("MSB_HOME", test.home.path());
    let output = sh.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = test.read("metrics.prom");
    for expected in [
        "# TYPE larder_job_attempts_total counter\n",
        "larder_job_attempts_total{job=\"nightly\",trigger=\"manual\",result=\"success\"} 1\n",
        "larder_job_last_run_timestamp_seconds{job=\"nightly\"} ",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
    assert!(!metrics.contains("config_last_reload"), "no service reads the file again: {metrics}");
    let mode = fs::metadata(test.directory().join("metrics.prom")).expect("the metrics").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let files = fs::read_dir(test.directory()).expect("the directory");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    assert!(names.into_iter().all(|name| !name.starts_with(".larder-")));
    let failed = test.larder("job run --due --file jobs.toml --textfile missing/metrics.prom");
    assert!(failed.status == 1 && failed.stderr.contains("missing/metrics.prom"), "{failed}");
}

/// What the checks look for is found: a page that loads a picture, has a handler, is too wide, and has a text that is faint.
#[test]
fn the_checks_find_faults() {
    if !has_tools(&["chromium"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("report.html");
    let faults = "<!DOCTYPE html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><title>x</title>\
                  <img src='http://larder.invalid/x.png'><pre>XXX</pre><table></table><b onclick='x()'>y</b><font color=#cccccc>z</font>";
    fs::write(&path, faults.replace("XXX", &"x".repeat(2000))).expect("a page");
    let seen = look_at(&path, Scheme::Dark);
    assert!(seen.console.iter().any(|line| line.contains("larder.invalid")), "{seen:?}");
    let screen = &seen.screens[0];
    assert!(screen["too_wide"].as_i64() > Some(1000), "{screen:#}");
    assert_eq!((&screen["nameless"], &screen["handlers"]), (&1.into(), &2.into()), "{screen:#}");
    assert!(screen["faint"]["ratio"].as_f64() < Some(2.0) && screen["faint"]["text"] == "z", "{screen:#}");
}

/// Puts states of the file system on record: filled up for days, and cleaned up.
pub(crate) fn insert_samples(home: &Home, days: i64) {
    // The first change of a home makes the tables.
    let reference = home.texts("SELECT reference FROM image_ref").pop_first().expect("an image");
    run(async { home.open().await.unpin(&reference).await }).expect("a change");
    let status = larder::job::FileSystemStatus::of(&home.cache()).expect("the file system");
    let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
    let mut index = home.index();
    let inserts = index.transaction().expect("a transaction");
    let steps = days * 24 * 6;
    for step in 0..steps {
        let at = now.timestamp() - (steps - step) * 600;
        // From the bound up to what is used now, four times.
        let far = (step * 4 % steps) as f64 / steps as f64;
        let used = status.size_bytes as f64 * (0.58 + 0.22 * far + 0.01 * (step as f64 / 9.0).sin());
        let available = status.size_bytes - used as u64;
        inserts
            .execute(
                "INSERT INTO larder_disk VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    at,
                    status.size_bytes as i64,
                    available as i64,
                    status.inodes as i64,
                    status.inodes_free as i64
                ],
            )
            .expect("a state");
    }
    inserts.commit().expect("the states");
}
