//! What a run sees, and what it is told.

use super::{MemoryCache, NOW, cache, days_ago, everything, grant, image, names, said, session};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::plan::{LogLevel, Right};
use crate::policy::session::Session;
use crate::policy::session::answers::CallError;
use crate::policy::session::select::{Filter, Order};
use crate::records::ImageDetail;
use crate::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageHistory, ImageRecord, MemoryImage, Pull};

const READ_ACME: &str = "[grant]\nread = [\"docker.io/acme/**\"]\nremove = [\"**\"]\ninspect = [\"**\"]\nforce = true\nprune = true\n[guard]\nmin-age = \"0s\"";

fn filter() -> Filter {
    Filter {
        reference: None,
        unused_since: None,
        arrived_before: None,
        min_size_bytes: None,
        unused: None,
        order: Order::CreatedNewest,
        after: None,
        limit: None,
    }
}

/// Every call that takes a name, on this one.
fn ask_all(session: &mut Session, name: &str) -> Vec<String> {
    let mut after = filter();
    after.after = Some(name.to_owned());
    vec![
        said(session.get(name)),
        said(session.inspect(name)),
        said(session.usage(Some(&[name.to_owned()]))),
        said(session.costs(Some(&[name.to_owned()]))),
        said(session.history(Some(&[name.to_owned()]))),
        said(session.reclaimable_bytes(&[name.to_owned()])),
        said(session.remove(name, false)),
        said(session.remove(name, true)),
        said(session.restore(name)),
        said(session.select(after)),
    ]
}

/// A hidden image is in no list, and every call about it says what it says about an image that does not exist.
#[test]
fn hidden_images_do_not_exist() {
    let mut session = session(cache(), grant(READ_ACME));
    let visible = ["docker.io/acme/tool:1", "docker.io/acme/app:2", "docker.io/acme/app:1"];
    let selected = session.select(filter());
    let listed = session.list();
    assert_eq!(names(&session, listed), visible);
    assert_eq!(names(&session, selected), visible);
    let usage = session.usage(None).map(|all| all.iter().map(|usage| usage.image).collect());
    let costs = session.costs(None).map(|all| all.iter().map(|cost| cost.image).collect());
    let history = session.history(None).map(|all| all.iter().map(|(image, _)| *image).collect());
    for answer in [usage, costs, history] {
        assert_eq!(names(&session, answer), visible);
    }
    assert!(!session.explain("docker.io/other/secret:1", "seen".to_owned()).expect("an answer"));
    let hidden = ask_all(&mut session, "docker.io/other/secret:1");
    let absent = ask_all(&mut session, "docker.io/other/absent:1");
    let renamed: Vec<_> = hidden.iter().map(|answer| answer.replace("secret", "absent")).collect();
    assert_eq!(renamed, absent);
    assert!(absent.iter().all(|answer| answer == "not found: docker.io/other/absent:1"), "{absent:?}");
    // The operator is told, once.
    let denials: Vec<_> = session.denials.list().into_iter().map(|denial| denial.allowed_by).collect();
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
    let found = |session: &mut Session, name: &str| {
        session.get(name).map(|index| session.images.get(index).reference().to_owned())
    };
    assert_eq!(said(found(&mut session, "python:3.12")), "\"python:3.12\"");
    assert_eq!(said(found(&mut session, "docker.io/python:3.12")), "\"docker.io/library/python:3.12\"");
    assert_eq!(said(session.remove("docker.io/python:3.12", false)), "()");
    assert_eq!(said(found(&mut session, "docker.io/library/python:3.12")), "\"python:3.12\"");
    assert_eq!(said(session.remove("python:3.12", false)), "()");
    assert_eq!(said(session.remove("python:3.12", false)), "not found: python:3.12");
    assert_eq!(said(found(&mut session, "python")), "not found: python");
}

/// Config, labels and layers are for those who may inspect, environment variables for those who may see secrets; whoever
/// may not can tell.
#[test]
fn secrets_are_withheld() {
    let mut secret = image("docker.io/acme/app:1", 1);
    secret.env = vec!["TOKEN=1".to_owned()];
    secret.labels = Some(serde_json::json!({ "keep": "true", "n": 1 }));
    let cache = || MemoryCache::new([secret.clone()]);
    let mut denied = session(cache(), grant(""));
    let lacking = said(denied.inspect("docker.io/acme/app:1"));
    assert!(lacking.starts_with("Inspect: "), "{lacking}");
    for (secrets, env) in [(false, vec![]), (true, vec!["TOKEN=1"])] {
        let text = format!("[grant]\ninspect = [\"**\"]\nsecrets = {secrets}");
        let inspected = session(cache(), grant(&text)).inspect("docker.io/acme/app:1").expect("a detail");
        let config = inspected.detail.config.expect("a config");
        assert_eq!(
            (inspected.shows_env, config.env),
            (secrets, env.into_iter().map(str::to_owned).collect())
        );
        assert_eq!(config.labels, secret.labels, "labels are no secrets");
        assert_eq!(inspected.detail.layers.len(), 2);
    }
}

/// What a set of images frees is asked of the snapshot less what is staged: shared layers count when their last image
/// goes, and what is in use frees nothing. What is taken back counts as before.
#[test]
fn costs_follow_what_is_staged() {
    let mut cache = MemoryCache::new([
        image("docker.io/a/a:1", 3),
        image("docker.io/a/a:2", 2),
        image("docker.io/a/a:3", 1),
    ])
    .with_layer("base", 1000);
    for name in ["docker.io/a/a:1", "docker.io/a/a:2", "docker.io/a/a:3"] {
        cache = cache.with_layer(name, 100);
    }
    for asks_before in [false, true] {
        let mut session = session(cache.clone(), everything());
        let costs = |session: &mut Session, name: &str| {
            let costs = session.costs(Some(&[name.to_owned()]));
            costs.map(|costs| (costs[0].unique_bytes, costs[0].shared_bytes))
        };
        let both = ["docker.io/a/a:1".to_owned(), "docker.io/a/a:2".to_owned()];
        if asks_before {
            assert_eq!(said(costs(&mut session, "docker.io/a/a:1")), "(100, 1000)");
            assert_eq!(said(session.reclaimable_bytes(&both)), "200");
        }
        assert_eq!(said(session.remove("docker.io/a/a:3", false)), "()");
        assert_eq!(said(session.reclaimable_bytes(&both)), "1200");
        assert_eq!(said(costs(&mut session, "docker.io/a/a:3")), "not found: docker.io/a/a:3");
        assert_eq!(said(session.remove("docker.io/a/a:2", false)), "()");
        assert_eq!(said(costs(&mut session, "docker.io/a/a:1")), "(1100, 0)");
        assert_eq!(said(session.reclaimable_bytes(&both)), "not found: docker.io/a/a:2");
        assert_eq!(said(session.restore("docker.io/a/a:2")), "()");
        assert_eq!(said(costs(&mut session, "docker.io/a/a:1")), "(100, 1000)");
        assert_eq!(said(session.reclaimable_bytes(&[])), "0");
    }
}

/// What an image shares with one that the grant hides is no more told than the hidden image is: it is not freed, and it
/// is not shared.
#[test]
fn sharing_with_hidden_images_is_not_told() {
    let costs = |text: &str| {
        let mut session = session(cache(), grant(text));
        let costs = session.costs(Some(&["docker.io/acme/app:2".to_owned()])).expect("costs");
        (costs[0].unique_bytes, costs[0].shared_bytes)
    };
    assert_eq!(costs("[grant]\nread = [\"docker.io/acme/app:2\"]"), (100, 0));
    assert_eq!(costs("[grant]\nread = [\"docker.io/acme/app:*\"]"), (100, 1000));
}

/// Answers come in the order of the references that were asked about, also twice for one that is named twice.
#[test]
fn answers_are_in_the_order_of_the_question() {
    let mut session = session(cache(), everything());
    let asked = ["docker.io/acme/app:1", "docker.io/acme/tool:1", "acme/app:1"].map(str::to_owned);
    let expected = ["docker.io/acme/app:1", "docker.io/acme/tool:1", "docker.io/acme/app:1"];
    let usage = session.usage(Some(&asked)).map(|all| all.iter().map(|usage| usage.image).collect());
    let costs = session.costs(Some(&asked)).map(|all| all.iter().map(|cost| cost.image).collect());
    let history = session.history(Some(&asked)).map(|all| all.iter().map(|(image, _)| *image).collect());
    for answer in [usage, costs, history] {
        assert_eq!(names(&session, answer), expected);
    }
}

/// The right that a removal without force would lack is the one that the removal is then denied for; of an image in use
/// it is `force`.
#[test]
fn what_a_removal_lacks() {
    let table = [
        ("", [Some(Right::Remove); 4]),
        ("[grant]\nremove = [\"**\"]", [Some(Right::Protected), None, Some(Right::Force), None]),
        (
            "[grant]\nremove = [\"docker.io/acme/**\"]\nmax-removals = 0",
            [Some(Right::Protected), Some(Right::Budget), Some(Right::Force), Some(Right::Remove)],
        ),
        (
            "[grant]\nremove = [\"**\"]\nmax-bytes = \"99B\"",
            [Some(Right::Protected), Some(Right::Budget), Some(Right::Force), Some(Right::Budget)],
        ),
        (
            "[grant]\nremove = [\"**\"]\n[guard]\nkeep = 1",
            [Some(Right::Protected), None, Some(Right::Force), Some(Right::Protected)],
        ),
    ];
    for (text, expected) in table {
        let mut session = session(cache(), grant(text));
        let lacks: Vec<_> = session.usage(None).expect("usage").iter().map(|usage| usage.lacks).collect();
        assert_eq!(lacks, expected, "{text}");
        for (index, lacks) in lacks.into_iter().enumerate() {
            let reference = session.images.get(index).reference().to_owned();
            let removed = said(session.remove(&reference, false));
            let expected = match lacks {
                None => "()".to_owned(),
                Some(Right::Force) => "in use".to_owned(),
                Some(right) => format!("{right:?}: "),
            };
            assert!(removed.starts_with(&expected), "{text}: {reference}: {removed}");
            if lacks.is_none() {
                assert_eq!(said(session.restore(&reference)), "()");
            }
        }
    }
}

/// What remains of the caps shrinks with what is staged, by the stricter of two, and grows with what is taken back.
#[test]
fn budgets() {
    let mut session = session(
        cache(),
        everything().with_grant(
            everything().grant.with_max_removals(3).with_max_share(crate::units::Share::percent(50)),
        ),
    );
    let left = |session: &Session| (session.budget().removals, session.budget().bytes);
    assert_eq!(left(&session), (Some(2), None));
    assert_eq!(said(session.remove("docker.io/acme/app:2", false)), "()");
    assert_eq!(left(&session), (Some(1), None));
    assert_eq!(said(session.restore("docker.io/acme/app:2")), "()");
    assert_eq!(left(&session), (Some(2), None));
    let mut bytes = super::session(cache(), grant("[grant]\nremove = [\"**\"]\nmax-bytes = \"150B\""));
    assert_eq!(said(bytes.remove("docker.io/acme/app:2", false)), "()");
    assert_eq!(left(&bytes), (None, Some(50)));
}

/// The recorded past of an image is told as far as there is one.
#[test]
fn histories() {
    let mut known = image("docker.io/a/a:1", 1);
    let pull = Pull { duration: std::time::Duration::from_millis(7), bytes: 9 };
    known.history = ImageHistory {
        first_seen_at: days_ago(3),
        boots: vec![NOW],
        boot_count: 4,
        arrivals: 2,
        last_pull: Some(pull),
    };
    let mut session = session(MemoryCache::new([known.clone(), image("docker.io/a/b:1", 2)]), grant(""));
    let history = session.history(None).expect("histories");
    assert_eq!(history, [(0, known.history), (1, ImageHistory::default())]);
}

/// A cache that cannot be read is that for a policy, and no path of it is told. What cannot be done without ends the run.
#[test]
fn failures_of_the_cache_are_not_told() {
    struct Broken(MemoryCache);
    fn broken<T>() -> MicrosandboxResult<T> {
        Err(MicrosandboxError::io("read", std::path::Path::new("/home/secret"))(std::io::Error::other("x")))
    }
    impl CacheSnapshot for Broken {
        fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
            self.0.images()
        }
        fn detail(&mut self, _: &str) -> MicrosandboxResult<ImageDetail> {
            broken()
        }
        fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
            broken()
        }
        fn history(&mut self) -> MicrosandboxResult<Vec<ImageHistory>> {
            broken()
        }
        fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
            broken()
        }
    }
    let access = super::Access::new(everything(), NOW);
    let mut session = Session::new(Box::new(Broken(cache())), access, None).expect("a session");
    let answers =
        [said(session.inspect("docker.io/acme/app:1")), said(session.history(None)), said(session.disk())];
    assert_eq!(answers, ["the cache could not be read"; 3]);
    assert_eq!(said(session.costs(None)), "the end: the cache could not be read for the policy");
}

/// A text of an image's own config that is longer than may cross ends the run and names the limit, as a list does.
#[test]
fn what_an_image_says_of_itself_has_a_limit() {
    let mut long = image("docker.io/acme/app:1", 1);
    long.env = vec!["A=1".to_owned(), "B=2".to_owned(), format!("C={}", "x".repeat(100))];
    let inspect = |limits: &str| {
        let text = format!("[grant]\ninspect = [\"**\"]\nsecrets = true\n[limits]\n{limits}");
        let mut session = session(MemoryCache::new([long.clone()]), grant(&text));
        session.inspect("docker.io/acme/app:1").map(|inspected| inspected.detail.layers.len())
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
    let next = session.select(page.clone());
    assert_eq!(names(&session, next), ["docker.io/acme/app:1"]);
    page.after = Some("docker.io/acme/never:1".to_owned());
    assert_eq!(said(session.select(page.clone())), "not found: docker.io/acme/never:1");
    page.after = None;
    page.reference = Some("docker.io/***".to_owned());
    let invalid = said(session.select(page));
    assert!(invalid.starts_with("docker.io/***: at character 13, expected"), "{invalid}");
}

/// A name means the same image in whatever order a run asks: as the list has it, against it, again and again, or in leaps.
#[test]
fn names_in_any_order() {
    let cache = MemoryCache::new((0..9).map(|number| image(&format!("docker.io/acme/app:{number}"), number)));
    let mut session = session(cache, everything());
    for number in [0, 0, 1, 2, 2, 1, 0, 8, 7, 7, 7, 6, 2, 3, 9, 4, 4, 0, 8, 5, 9, 6] {
        let expected =
            if number == 9 { "not found: docker.io/acme/app:9".to_owned() } else { number.to_string() };
        assert_eq!(said(session.get(&format!("docker.io/acme/app:{number}"))), expected);
        let short = format!("acme/app:{number}");
        assert_eq!(said(session.get(&short)), expected.replace("docker.io/", ""));
    }
    assert_eq!(said(session.remove("acme/app:8", false)), "()");
    assert_eq!(said(session.get("docker.io/acme/app:8")), "not found: docker.io/acme/app:8");
    assert_eq!(said(session.get("docker.io/acme/app:7")), "7");
}

/// The last reason stands, cut to 512 bytes; reasons for what the run cannot see are not kept, and the policy is told. All
/// of them together have a limit.
#[test]
fn reasons() {
    let mut session = session(cache(), grant(&format!("{READ_ACME}\n[limits]\nreasons = \"600B\"")));
    for (name, reason, expected) in [
        ("docker.io/acme/app:2", "first", true),
        ("acme/app:2", "second", true),
        ("docker.io/other/secret:1", "a long reason", false),
        ("docker.io/other/absent:1", "a long reason", false),
        ("A B", "a long reason", false),
    ] {
        assert_eq!(session.explain(name, reason.to_owned()).expect("an answer"), expected, "{name}");
    }
    assert_eq!(said(session.remove("docker.io/acme/app:2", false)), "()");
    assert_eq!(said(session.explain("docker.io/acme/app:2", "é".repeat(300))), "true", "staged ones too");
    let index = session.images.find_place("docker.io/acme/app:2");
    let crate::policy::session::images::Found::Image(index) = index else { panic!("{index:?}") };
    let kept = |session: &Session| session.images.get(index).reason.as_ref().map_or(0, String::len);
    assert_eq!(kept(&session), 512);
    assert_eq!(said(session.explain("docker.io/acme/app:2", "\u{7}".repeat(511))), "true");
    assert_eq!(kept(&session), 510, "what stands for a control character takes three bytes");
    let end = said(session.explain("docker.io/acme/app:1", "x".repeat(100)));
    assert!(end.starts_with("the end: the policy went past its limit: `reasons` is 600B"), "{end}");
}

/// A log line costs its text and one byte more.
#[test]
fn log_lines() {
    let mut session = session(cache(), grant("[limits]\nlog = \"8B\""));
    for _ in 0..2 {
        assert_eq!(said(session.log(LogLevel::Warn, "abc")), "()");
    }
    assert!(said(session.log(LogLevel::Warn, "")).contains("`log` is 8B"));
}

/// What goes to the guest in one call has a limit, in elements and in bytes.
#[test]
fn lists_have_a_limit() {
    let mut few = session(cache(), grant("[limits]\nlist = 3"));
    assert!(said(few.list()).contains("`list` is 3"));
    let mut small = session(cache(), grant("[limits]\ntransfer = \"500B\""));
    let answers: [Result<(), CallError>; 4] = [
        small.list().map(drop),
        small.usage(None).map(drop),
        small.costs(None).map(drop),
        small.history(None).map(drop),
    ];
    for answer in answers {
        assert!(said(answer).contains("`transfer` is 500B"));
    }
}
