use super::*;
use crate::artifacts::unowned::UnownedKind;
use crate::reference::Digest;

fn plan() -> Plan {
    let handle = |reference: &str| ImageHandle {
        architecture: None,
        created_at: DateTime::from_timestamp(1_700_000_000, 0),
        last_used_at: None,
        layer_count: 1,
        manifest_digest: Some(Digest::of(reference.as_bytes()).to_string()),
        os: None,
        reference: reference.to_owned(),
        size_bytes: None,
    };
    let entries = vec![
        PlanEntry::keep(&handle("docker.io/acme/app:2"), "newest"),
        PlanEntry::remove(&handle("docker.io/acme/app:1"), "old", 100, false),
    ];
    let collect = vec![UnownedFile { bytes: 7, kind: UnownedKind::Artifact, path: "layers/x.erofs".into() }];
    let report = ImagePruneReport { image_refs_removed: 1, ..ImagePruneReport::default() };
    Plan::new(Maker::Prune, DateTime::UNIX_EPOCH, entries, collect, report)
}

/// A plan reads back as it was written, and its bytes are the sum of its parts.
#[test]
fn a_plan_survives_its_document() {
    let plan = plan();
    assert_eq!((plan.bytes, plan.report.bytes_reclaimed), (107, Some(107)));
    let json = plan.to_json().expect("JSON");
    assert!(
        json.starts_with(
            "{\n  \"version\": 2,\n  \"made_by\": \"prune\",\n  \"created_at\": \"1970-01-01T00:00:00Z\",\n"
        ),
        "{json}"
    );
    assert_eq!(Plan::from_json(&json).expect("the same"), plan);
}

/// A plan that was changed by hand into something that contradicts itself is refused, with the place.
#[test]
fn contradictions_are_refused_with_their_place() {
    let json = plan().to_json().expect("JSON");
    let refused = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        Plan::from_json(&json.replacen(from, to, 1)).expect_err("refused").to_string()
    };
    let table = [
        ("\"version\": 2", "\"version\": 3", "`version` is 3, and this larder reads 2: make the plan again"),
        ("\"bytes\": 107", "\"bytes\": 108", "`bytes` is 108, which is not the sum of the bytes in it"),
        (
            "app:1\"",
            "app:2\"",
            "`entries[1].reference`: `docker.io/acme/app:2` is to be removed and to be kept",
        ),
        (
            "layers/x.erofs",
            "layers/../../x",
            "`collect[0].path`: `layers/../../x` is not a path inside the cache",
        ),
        ("layers/x.erofs", "/etc/passwd", "`collect[0].path`: `/etc/passwd` is not a path inside the cache"),
        (
            "\"decision\": \"keep\"",
            "\"decision\": \"remove\"",
            "`report.image_refs_removed` is 1, and 2 entries are to be removed",
        ),
        ("\"reason\"", "\"raeson\"", "unknown field `raeson`"),
        ("\"bytes\": 100", "\"bytes\": 18446744073709551615", "`bytes` is 107"),
    ];
    for (from, to, expected) in table {
        let message = refused(from, to);
        assert!(message.starts_with(&format!("the plan cannot be used: {expected}")), "{message}");
    }
    for text in ["", "[]", "{}", "{\"version\": 1}", "null"] {
        Plan::from_json(text).expect_err(text);
    }
}
