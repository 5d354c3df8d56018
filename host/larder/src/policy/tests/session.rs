//! What a run sees, and what it is told.

use super::super::bindings::{images as wit, report, types};
use super::super::session::Session;
use super::{MemoryCache, cache, everything, grant, image, said, session};
use crate::snapshot::MemoryImage;

const READ_ACME: &str = "[grant]\nread = [\"docker.io/acme/**\"]\nremove = [\"**\"]\ninspect = [\"**\"]\nforce = true\nprune = true\n[guard]\nmin-age = \"0s\"";

fn filter() -> wit::ImageFilter {
    wit::ImageFilter {
        reference: None,
        unused_since: None,
        created_before: None,
        min_size_bytes: None,
        unused: None,
        order: wit::Order::CreatedNewestFirst,
        after: None,
        limit: None,
    }
}

fn names(handles: Result<Vec<types::ImageHandle>, super::Stop>) -> Vec<String> {
    handles.expect("a list").into_iter().map(|handle| handle.reference).collect()
}

/// Every call that takes a name, on this one.
fn ask_all(session: &mut Session, name: &str) -> Vec<String> {
    let mut after = filter();
    after.after = Some(name.to_owned());
    vec![
        said(session.get(name)),
        said(session.inspect(name)),
        said(session.get_usage(name)),
        said(session.reclaimable_bytes(&[name.to_owned()])),
        said(session.remove(name, false)),
        said(session.remove(name, true)),
        said(session.select(after)),
    ]
}

/// A hidden image is in no list, and every call about it says what it says about an image that does not exist.
#[test]
fn hidden_images_do_not_exist() {
    let mut session = session(cache(), grant(READ_ACME));
    let visible = ["docker.io/acme/tool:1", "docker.io/acme/app:2", "docker.io/acme/app:1"];
    assert_eq!(names(session.list()), visible);
    assert_eq!(names(session.select(filter())), visible);
    let usage = session.list_usage().expect("a list");
    assert_eq!(usage.iter().map(|usage| usage.reference.as_str()).collect::<Vec<_>>(), visible);
    let hidden = ask_all(&mut session, "docker.io/other/secret:1");
    let absent = ask_all(&mut session, "docker.io/other/absent:1");
    let renamed: Vec<_> = hidden.iter().map(|answer| answer.replace("secret", "absent")).collect();
    assert_eq!(renamed, absent);
    assert!(absent.iter().all(|answer| answer == "not found: docker.io/other/absent:1"), "{absent:?}");
    // The operator is told, once.
    let denials: Vec<_> = session.denials.iter().map(|denial| denial.allowed_by.as_str()).collect();
    assert_eq!(denials, ["`read = [\"docker.io/other/secret:1\"]` in `[grant]`"]);
}

/// A text in the index that is no reference is hidden like any other image: a call about it says what it says about
/// any text that is no reference.
#[test]
fn hidden_texts_do_not_exist() {
    let cache = || MemoryCache::new([image("NOT A REFERENCE", 1), image("docker.io/acme/app:1", 1)]);
    let mut hiding = session(cache(), grant(READ_ACME));
    let hidden = ask_all(&mut hiding, "NOT A REFERENCE");
    let absent = ask_all(&mut hiding, "NOT B REFERENCE");
    assert_eq!(hidden.iter().map(|answer| answer.replace("NOT A", "NOT B")).collect::<Vec<_>>(), absent);
    let mut seeing = session(cache(), everything());
    assert_eq!(said(seeing.remove("NOT A REFERENCE", false)), "()");
}

/// A name is matched as it stands, then normalized; a spelling that is gone makes room for another one.
#[test]
fn names_are_matched_as_they_stand_then_normalized() {
    let spellings = ["docker.io/library/python:3.12", "python:3.12"];
    let mut session = session(MemoryCache::new(spellings.map(MemoryImage::new)), everything());
    let found = |session: &mut Session, name: &str| session.get(name).map(|handle| handle.reference);
    assert_eq!(said(found(&mut session, "python:3.12")), "\"python:3.12\"");
    assert_eq!(said(found(&mut session, "docker.io/python:3.12")), "\"docker.io/library/python:3.12\"");
    assert_eq!(said(session.remove("docker.io/python:3.12", false)), "()");
    assert_eq!(said(found(&mut session, "docker.io/library/python:3.12")), "\"python:3.12\"");
    assert_eq!(said(session.remove("python:3.12", false)), "()");
    assert_eq!(said(session.remove("python:3.12", false)), "not found: python:3.12");
    assert_eq!(said(found(&mut session, "python")), "not found: python");
}

/// Config and layers are for those who may inspect, environment and labels for those who may see secrets.
#[test]
fn secrets_are_withheld() {
    let mut secret = image("docker.io/acme/app:1", 1);
    secret.env = vec!["TOKEN=1".to_owned()];
    secret.labels = Some(serde_json::json!({ "a": "b", "n": 1 }));
    let cache = || MemoryCache::new([secret.clone()]);
    let mut denied = session(cache(), grant(""));
    assert_eq!(
        said(denied.inspect("docker.io/acme/app:1")),
        "denied: Right::Inspect of \"docker.io/acme/app:1\""
    );
    for (secrets, env, labels) in [
        (false, vec![], vec![]),
        (true, vec!["TOKEN=1"], vec![("a".to_owned(), "b".to_owned()), ("n".to_owned(), "1".to_owned())]),
    ] {
        let text = format!("[grant]\ninspect = [\"**\"]\nsecrets = {secrets}");
        let detail = session(cache(), grant(&text)).inspect("docker.io/acme/app:1").expect("a detail");
        let config = detail.config.expect("a config");
        assert_eq!((config.env, config.labels), (env.into_iter().map(str::to_owned).collect(), labels));
        assert_eq!(detail.layers.len(), 2);
    }
}

/// What a set of images frees is asked of the state less what is staged: shared layers count when their last image
/// goes, and what is in use frees nothing.
#[test]
fn usage_follows_what_is_staged() {
    let mut cache = MemoryCache::new([
        image("docker.io/a/a:1", 3),
        image("docker.io/a/a:2", 2),
        image("docker.io/a/a:3", 1),
    ])
    .with_layer("base", 1000);
    for name in ["docker.io/a/a:1", "docker.io/a/a:2", "docker.io/a/a:3"] {
        cache = cache.with_layer(name, 100);
    }
    let mut session = session(cache, everything());
    let usage = |session: &mut Session, name: &str| {
        session.get_usage(name).map(|usage| (usage.unique_bytes, usage.shared_bytes))
    };
    let both = ["docker.io/a/a:1".to_owned(), "docker.io/a/a:2".to_owned()];
    assert_eq!(said(usage(&mut session, "docker.io/a/a:1")), "(100, 1000)");
    assert_eq!(said(session.reclaimable_bytes(&both)), "200");
    assert_eq!(said(session.remove("docker.io/a/a:3", false)), "()");
    assert_eq!(said(session.reclaimable_bytes(&both)), "1200");
    assert_eq!(said(usage(&mut session, "docker.io/a/a:3")), "not found: docker.io/a/a:3");
    assert_eq!(said(session.remove("docker.io/a/a:2", false)), "()");
    assert_eq!(said(usage(&mut session, "docker.io/a/a:1")), "(1100, 0)");
    assert_eq!(said(session.reclaimable_bytes(&both)), "not found: docker.io/a/a:2");
    assert_eq!(said(session.reclaimable_bytes(&[])), "0");
}

/// What an image shares with one that the grant hides is no more told than the hidden image is: it is not freed, and it
/// is not shared.
#[test]
fn sharing_with_hidden_images_is_not_told() {
    let usage = |text: &str| {
        let mut session = session(cache(), grant(text));
        let usage = session.get_usage("docker.io/acme/app:2").expect("a usage");
        (usage.unique_bytes, usage.shared_bytes)
    };
    assert_eq!(usage("[grant]\nread = [\"docker.io/acme/app:2\"]"), (100, 0));
    assert_eq!(usage("[grant]\nread = [\"docker.io/acme/app:*\"]"), (100, 1000));
}

/// A text of an image's own config that is longer than may cross ends the run and names the limit, as a list does.
#[test]
fn what_an_image_says_of_itself_has_a_limit() {
    let mut long = image("docker.io/acme/app:1", 1);
    long.env = vec!["A=1".to_owned(), "B=2".to_owned(), format!("C={}", "x".repeat(100))];
    let inspect = |limits: &str| {
        let text = format!("[grant]\ninspect = [\"**\"]\nsecrets = true\n[limits]\n{limits}");
        let mut session = session(MemoryCache::new([long.clone()]), grant(&text));
        session.inspect("docker.io/acme/app:1").map(|detail| detail.layers.len())
    };
    assert_eq!(said(inspect("")), "2");
    assert!(said(inspect("string = \"101B\"")).contains("`string` is 101B, the longest text that may cross"));
    assert!(said(inspect("list = 2")).contains("`list` is 2"));
}

/// A page begins after an image that has been staged since, and a filter that cannot be read is answered.
#[test]
fn pages_go_on_after_what_is_staged() {
    let mut session = session(cache(), everything());
    let mut page = filter();
    page.after = Some("docker.io/acme/app:2".to_owned());
    page.limit = Some(1);
    assert_eq!(said(session.remove("docker.io/acme/app:2", false)), "()");
    assert_eq!(names(session.select(page.clone())), ["docker.io/acme/app:1"]);
    page.after = Some("docker.io/acme/never:1".to_owned());
    assert_eq!(said(session.select(page.clone())), "not found: docker.io/acme/never:1");
    page.after = None;
    page.reference = Some("docker.io/***".to_owned());
    assert!(said(session.select(page.clone())).contains("is not a reference pattern: at character 13"));
    page.reference = None;
    page.unused_since = Some(types::Datetime { seconds: i64::MAX, nanoseconds: 0 });
    assert_eq!(said(session.select(page.clone())), "the filter has an instant that is not one");
    page.unused_since = Some(types::Datetime { seconds: 0, nanoseconds: 1_000_000_000 });
    assert_eq!(said(session.select(page)), "the filter has an instant that is not one");
}

/// The last reason stands; reasons for what the run cannot see are not kept, and all of them together have a limit.
#[test]
fn reasons() {
    let mut session = session(cache(), grant(&format!("{READ_ACME}\n[limits]\nreasons = \"10B\"")));
    for (name, reason) in [
        ("docker.io/acme/app:2", "first"),
        ("docker.io/acme/app:2", "second"),
        ("docker.io/other/secret:1", "a long reason"),
    ] {
        assert_eq!(said(session.explain(name, reason)), "()");
    }
    assert_eq!(said(session.remove("docker.io/acme/app:2", false)), "()");
    assert_eq!(said(session.explain("docker.io/acme/app:2", "0123456789")), "()", "staged ones too");
    let end = said(session.explain("docker.io/acme/app:1", "x"));
    assert!(end.starts_with("the end: the policy went past its limit: `reasons` is 10B"), "{end}");
}

/// A log line costs its text and one byte more.
#[test]
fn log_lines() {
    let mut session = session(cache(), grant("[limits]\nlog = \"8B\""));
    for _ in 0..2 {
        assert_eq!(said(session.log(report::Level::Warn, "abc")), "()");
    }
    assert!(said(session.log(report::Level::Warn, "")).contains("`log` is 8B"));
}

/// What goes to the guest in one call has a limit, in elements and in bytes.
#[test]
fn lists_have_a_limit() {
    let mut few = session(cache(), grant("[limits]\nlist = 3"));
    assert!(said(few.list()).contains("`list` is 3"));
    let mut small = session(cache(), grant("[limits]\ntransfer = \"500B\""));
    assert!(said(small.list()).contains("`transfer` is 500B"));
    assert!(said(small.list_usage()).contains("`transfer` is 500B"));
}
