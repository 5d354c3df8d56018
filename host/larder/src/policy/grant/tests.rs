use std::time::Duration;

use super::diagnose::KEYS;
use super::*;

fn message(text: &str) -> String {
    GrantDocument::from_toml(text, "grant.toml").expect_err("not a grant").to_string()
}

/// An empty document lets a policy see every image and change nothing, for at most five seconds.
#[test]
fn the_default_changes_nothing() {
    let document: GrantDocument = "".parse().expect("a grant");
    assert_eq!(document, GrantDocument::default());
    let Grant { read, inspect, secrets, remove, force, prune, .. } = document.grant;
    assert_eq!(read.iter().map(ReferencePattern::as_str).collect::<Vec<_>>(), ["**"]);
    assert!(inspect.is_empty() && remove.is_empty() && !secrets && !force && !prune);
    assert_eq!((document.guard.min_age, document.guard.keep), (None, 0));
    assert_eq!((document.limits.time, document.limits.memory), (Duration::from_secs(5), ByteSize::mib(64)));
}

const WHOLE: &str = r#"
[grant]
read     = ["**"]
inspect  = ["**"]
secrets  = true
remove   = ["docker.io/acme/**"]
force    = true
prune    = true
max-removals = 50
max-bytes    = "20GiB"
max-share    = "25%"

[guard]
protect = ["docker.io/acme/base"]
min-age = "1h"
keep    = 1

[limits]
time       = "5s"
memory     = "64MiB"
host-calls = 1_000_000
log        = "256KiB"
fuel       = 10_000_000_000
"#;

/// Every key is read, and a document that a plan carries reads back the same.
#[test]
fn a_whole_document_survives_a_plan() {
    let document = GrantDocument::from_toml(WHOLE, "grant.toml").expect("a grant");
    assert_eq!(document.grant.max_bytes, Some(ByteSize::gib(20)));
    assert_eq!(document.grant.max_share, Some(Share::percent(25)));
    assert_eq!(document.limits.fuel, Some(10_000_000_000));
    let json = serde_json::to_string(&document).expect("JSON");
    assert_eq!(serde_json::from_str::<GrantDocument>(&json).expect("the same"), document);
    let toml = toml::to_string(&document).expect("TOML");
    assert_eq!(GrantDocument::from_toml(&toml, "again").expect("the same"), document);
}

/// The keys that are suggested are the keys there are.
#[test]
fn suggestions_know_every_key() {
    let document = GrantDocument::from_toml(WHOLE, "grant.toml").expect("a grant");
    let json = serde_json::to_value(&document).expect("JSON");
    for (table, keys) in &KEYS.tables[1..] {
        let mut known = keys.to_vec();
        known.sort_unstable();
        let mut fields: Vec<_> =
            json[table].as_object().expect("a table").keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(known, fields, "[{table}]");
    }
}

/// What cannot be read is refused with file, line and key, and what was probably meant.
#[test]
fn errors_name_the_line_and_the_key() {
    let table = [
        (
            "[grant]\nremov = []",
            "grant.toml, line 2: `remov`: no such key in `[grant]`; did you mean `remove`?",
        ),
        (
            "[grant]\nread = []\nmax_bytes = \"1B\"",
            "grant.toml, line 3: `max_bytes`: no such key in `[grant]`; did you mean `max-bytes`?",
        ),
        (
            "[grant]\nkeep = 1",
            "grant.toml, line 2: `keep`: no such key in `[grant]`; did you mean `keep` in `[guard]`?",
        ),
        (
            "[limit]\ntime = \"5s\"",
            "grant.toml, line 1: `limit`: no such table in a grant; there are `[grant]`, `[guard]` and `[limits]`; did you mean `limits`?",
        ),
        ("[guard]\nzzz = 1", "grant.toml, line 2: `zzz`: no such key in `[guard]`"),
        (
            "[limits]\ntime = 5",
            "grant.toml, line 2: `time`: the number `5` is not a duration such as `500ms`, `5s`, `1h30m` or `7d`",
        ),
        (
            "[grant]\nmax-bytes = \"20 GiB\"",
            "grant.toml, line 2: `max-bytes`: `20 GiB` is not a size such as `512B`, `64MiB` or `20GiB`; did you mean `20GiB`?",
        ),
        (
            "[grant]\nmax-removals = -1",
            "grant.toml, line 2: `max-removals`: invalid value: integer `-1`, expected a whole number of at most 4294967295",
        ),
        (
            "[grant]\nread = \"**\"",
            "grant.toml, line 2: `read`: invalid type: string \"**\", expected a list of patterns such as `[\"docker.io/acme/**\"]`",
        ),
        (
            "[grant]\nremove = [\"docker.io/[ab]\"]",
            "grant.toml, line 2: `remove`: `docker.io/[ab]` is not a reference pattern: at character 11, expected a letter, a digit, or one of `/:@.-_+*`",
        ),
        (
            "[limits]\nstack = \"1GiB\"",
            "grant.toml, line 2: `stack`: `1GiB` is not a size from `64KiB` to `1MiB`",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(message(text), expected, "{text}");
    }
    assert!(message("[grant\n").starts_with("grant.toml, line 1: "));
}

/// Garbage is refused and never panics.
#[test]
fn garbage_is_an_error() {
    for text in ["\u{0}", "=", "[[grant]]", "grant = 1", "[grant]\nread = [1]", "é = \"é\n"] {
        GrantDocument::from_toml(text, "grant.toml").expect_err(text);
    }
}
