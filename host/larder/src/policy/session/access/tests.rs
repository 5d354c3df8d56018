use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::policy::grant::{Grant, Guard};
use crate::units::{ByteSize, Share};

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
const HOUR: u64 = 3600;

fn patterns(texts: &[&str]) -> Vec<ReferencePattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

fn access(grant: Grant, guard: Guard) -> Access {
    Access::new(GrantDocument::default().with_grant(grant).with_guard(guard), NOW)
}

fn ago(seconds: u64) -> Option<DateTime<Utc>> {
    NOW.checked_sub_signed(TimeDelta::seconds(i64::try_from(seconds).expect("few")))
}

/// Each list of patterns gives its right to the normalized references that it matches and to no other; what is
/// in the index without being a reference is matched as it stands.
#[test]
fn lists_of_patterns() {
    let table: [(&[&str], &str, bool); 8] = [
        (&[], "python:3.12", false),
        (&["**"], "python:3.12", true),
        (&["docker.io/library/**"], "python:3.12", true),
        (&["docker.io/library/python"], "python:3.12", true),
        (&["docker.io/acme/**"], "python:3.12", false),
        (&["docker.io/acme/**", "docker.io/library/python:*"], "python:3.12", true),
        (&["**"], "NOT A REFERENCE", true),
        (&["docker.io/**"], "NOT A REFERENCE", false),
    ];
    for (list, text, expected) in table {
        let cell = OnceCell::new();
        let name = Name::new(text, &cell);
        let list = patterns(list);
        let guard = Guard::default().with_min_age(Duration::ZERO);
        let read = access(Grant::default().with_read(list.clone()), guard.clone());
        let inspect = access(Grant::default().with_inspect(list.clone()), guard.clone());
        let remove = access(Grant::default().with_remove(list.clone()), guard);
        let subject = Subject {
            name,
            pinned: false,
            arrived_at: None,
            last_used_at: None,
            in_use: false,
            left_in_repository: None,
        };
        assert_eq!(read.may_read(name), expected, "read {list:?} {text}");
        assert_eq!(inspect.may_inspect(name).is_ok(), expected, "inspect {list:?} {text}");
        assert_eq!(remove.may_remove(&subject, false).is_ok(), expected, "remove {list:?} {text}");
    }
}

/// Secrets and pruning are given by their switches alone.
#[test]
fn switches() {
    for on in [false, true] {
        let access = access(Grant::default().with_secrets(on).with_prune(on), Guard::default());
        assert_eq!((access.sees_secrets(), access.may_prune().is_ok()), (on, on));
    }
}

/// What is granted is refused all the same while the guard protects it, first for the pin, then for the pattern,
/// the age and the repository; only then does use count, and then `force`.
#[test]
fn removing() {
    let python = OnceCell::new();
    let guard = Guard {
        protect: patterns(&["docker.io/acme/**"]),
        min_age: Some(Duration::from_secs(HOUR)),
        keep: 1,
    };
    let base = Subject {
        name: Name::new("python:3.12", &python),
        pinned: false,
        arrived_at: ago(HOUR),
        last_used_at: ago(HOUR),
        in_use: false,
        left_in_repository: Some(2),
    };
    let acme = OnceCell::new();
    let every = Subject {
        name: Name::new("docker.io/acme/app:1", &acme),
        pinned: true,
        arrived_at: ago(0),
        last_used_at: None,
        in_use: true,
        left_in_repository: Some(1),
    };
    // subject, granted, forced, force granted, what it says
    let table = [
        (base, true, false, false, "yes"),
        (
            base,
            false,
            false,
            false,
            "remove: docker.io/library/python:3.12: the grant does not let this policy remove it",
        ),
        (
            every,
            false,
            true,
            true,
            "remove: docker.io/acme/app:1: the grant does not let this policy remove it",
        ),
        (every, true, true, true, "protected: docker.io/acme/app:1: it is pinned"),
        (
            Subject { pinned: false, ..every },
            true,
            true,
            true,
            "protected: docker.io/acme/app:1: `docker.io/acme/**` is protected",
        ),
        (
            Subject { arrived_at: ago(HOUR - 1), in_use: true, left_in_repository: Some(1), ..base },
            true,
            true,
            true,
            "protected: docker.io/library/python:3.12: it is younger than 1h",
        ),
        (
            Subject { last_used_at: ago(HOUR - 1), ..base },
            true,
            false,
            false,
            "protected: docker.io/library/python:3.12: it is younger than 1h",
        ),
        (Subject { last_used_at: None, ..base }, true, false, false, "yes"),
        (
            Subject { arrived_at: None, ..base },
            true,
            false,
            false,
            "protected: docker.io/library/python:3.12: nobody knows whether it is older than 1h",
        ),
        (
            Subject { left_in_repository: Some(1), in_use: true, ..base },
            true,
            true,
            true,
            "protected: docker.io/library/python:3.12: its repository would be left without any reference",
        ),
        (Subject { left_in_repository: None, ..base }, true, false, false, "yes"),
        (Subject { in_use: true, ..base }, true, false, true, "in use"),
        (
            Subject { in_use: true, ..base },
            true,
            true,
            false,
            "force: docker.io/library/python:3.12: something uses it, and the grant does not let this policy force its removal",
        ),
        (Subject { in_use: true, ..base }, true, true, true, "yes"),
        (base, true, true, false, "yes"),
    ];
    for (subject, granted, force, force_granted, expected) in table {
        let remove = if granted { patterns(&["**"]) } else { Vec::new() };
        let access = access(Grant::default().with_remove(remove).with_force(force_granted), guard.clone());
        let said = match access.may_remove(&subject, force) {
            Ok(()) => "yes".to_owned(),
            Err(NotRemovable::InUse) => "in use".to_owned(),
            Err(NotRemovable::Refused(refusal)) => {
                let right = format!("{:?}", refusal.right()).to_lowercase();
                format!("{right}: {}", refusal.message(Some(subject.name)))
            }
        };
        assert_eq!(said, expected, "{subject:?}");
    }
}

/// A minimum age that reaches back before all time protects everything, and none protects nothing.
#[test]
fn odd_ages() {
    let python = OnceCell::new();
    let remove = Grant::default().with_remove(patterns(&["**"]));
    for (min_age, arrived_at, expected) in [
        (Duration::MAX, DateTime::from_timestamp(0, 0), false),
        (Duration::ZERO, None, true),
        (Duration::ZERO, ago(0), true),
        (Duration::from_secs(1), NOW.checked_add_signed(TimeDelta::days(1)), false),
    ] {
        let name = Name::new("python:3.12", &python);
        let subject = Subject {
            name,
            pinned: false,
            arrived_at,
            last_used_at: None,
            in_use: false,
            left_in_repository: None,
        };
        let access = access(remove.clone(), Guard::default().with_min_age(min_age));
        assert_eq!(access.may_remove(&subject, false).is_ok(), expected, "{min_age:?} {arrived_at:?}");
    }
}

/// What would allow a refused call is named as it stands in the grant.
#[test]
fn refusals_say_what_would_allow_it() {
    let python = OnceCell::new();
    let name = Name::new("python:3.12", &python);
    let none = access(Grant::default(), Guard::default());
    assert_eq!(
        Refusal::Hidden.allowed_by(Some(name)),
        "`read = [\"docker.io/library/python:3.12\"]` in `[grant]`"
    );
    assert_eq!(none.may_prune().expect_err("refused").allowed_by(None), "`prune = true` in `[grant]`");
    let subject = Subject {
        name,
        pinned: true,
        arrived_at: None,
        last_used_at: None,
        in_use: false,
        left_in_repository: None,
    };
    let all = access(Grant::default().with_remove(patterns(&["**"])), Guard::default());
    let Err(NotRemovable::Refused(refusal)) = all.may_remove(&subject, false) else { panic!("refused") };
    assert_eq!(refusal.allowed_by(Some(name)), "`larder unpin docker.io/library/python:3.12`");
}

/// Each cap alone refuses, from the first reference or byte past it, and all that are passed are named.
#[test]
fn budgets() {
    let grant = Grant::default()
        .with_max_removals(10)
        .with_max_bytes(ByteSize::bytes(1000))
        .with_max_share(Share::percent(25));
    let access = access(grant, Guard::default());
    let table: [(u64, u64, u64, &[&str]); 6] = [
        (10, 1000, 40, &[]),
        (11, 1000, 44, &["max-removals"]),
        (10, 1001, 40, &["max-bytes"]),
        (10, 1000, 39, &["max-share"]),
        (11, 1001, 40, &["max-removals", "max-bytes", "max-share"]),
        (0, 0, 0, &[]),
    ];
    for (references, bytes, in_cache, expected) in table {
        let total = Total { references, bytes };
        let keys: Vec<_> = access.overruns(total, in_cache).iter().map(Overrun::key).collect();
        assert_eq!(keys, expected);
        assert_eq!(access.within_budget(total, in_cache).is_ok(), expected.is_empty());
    }
    let none = Access::new(GrantDocument::default(), NOW);
    assert!(none.within_budget(Total { references: u64::MAX, bytes: u64::MAX }, 0).is_ok());
}

/// Everything that decides about one removal.
#[derive(Debug, Clone)]
struct Drawn {
    remove: Vec<usize>,
    force_granted: bool,
    guards: [(Vec<usize>, Option<u64>, u32); 2],
    reference: usize,
    arrived: Option<u64>,
    used: Option<u64>,
    pinned: bool,
    in_use: bool,
    force: bool,
    left: u32,
}

const REFERENCES: [&str; 4] =
    ["docker.io/acme/app:1", "docker.io/acme/base:2", "docker.io/library/python:3", "quay.io/acme/app:1"];

/// Patterns, and the references that each matches by its meaning.
const PATTERNS: [(&str, [bool; 4]); 5] = [
    ("**", [true; 4]),
    ("docker.io/acme/*", [true, true, false, false]),
    ("docker.io/acme/app", [true, false, false, false]),
    ("**:3", [false, false, true, false]),
    ("quay.io/**", [false, false, false, true]),
];

impl Drawn {
    /// What the design says, rule by rule: which right is lacking, or that it is in use.
    fn expected(&self) -> Result<(), &'static str> {
        let matches = |list: &[usize]| list.iter().any(|&pattern| PATTERNS[pattern].1[self.reference]);
        let min_age = self.guards.iter().filter_map(|guard| guard.1).max().unwrap_or(HOUR);
        let age = self.arrived.map(|arrived| self.used.map_or(arrived, |used| used.min(arrived)));
        let keep = self.guards.iter().map(|guard| guard.2).max().unwrap_or_default();
        if !matches(&self.remove) {
            Err("remove")
        } else if self.pinned
            || self.guards.iter().any(|guard| matches(&guard.0))
            || min_age > 0 && age.is_none_or(|age| age < min_age)
            || self.left <= keep
        {
            Err("protected")
        } else if self.in_use && !self.force {
            Err("in use")
        } else if self.in_use && !self.force_granted {
            Err("force")
        } else {
            Ok(())
        }
    }

    fn decided(&self) -> Result<(), &'static str> {
        let list =
            |list: &[usize]| patterns(&list.iter().map(|&pattern| PATTERNS[pattern].0).collect::<Vec<_>>());
        let guards = self.guards.iter().map(|(protect, min_age, keep)| {
            let min_age = min_age.map(Duration::from_secs);
            Guard::default().with_protect(list(protect)).with_min_age(min_age).with_keep(*keep)
        });
        let guard = guards.fold(Guard::default(), |all, guard| all.and(&guard));
        let grant = Grant::default().with_remove(list(&self.remove)).with_force(self.force_granted);
        let cell = OnceCell::new();
        let subject = Subject {
            name: Name::new(REFERENCES[self.reference], &cell),
            pinned: self.pinned,
            arrived_at: self.arrived.and_then(ago),
            last_used_at: self.used.and_then(ago),
            in_use: self.in_use,
            left_in_repository: Some(self.left),
        };
        match access(grant, guard).may_remove(&subject, self.force) {
            Ok(()) => Ok(()),
            Err(NotRemovable::InUse) => Err("in use"),
            Err(NotRemovable::Refused(Refusal::NotGranted)) => Err("remove"),
            Err(NotRemovable::Refused(Refusal::NotForceable)) => Err("force"),
            Err(NotRemovable::Refused(_)) => Err("protected"),
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let list = || prop::collection::vec(0..PATTERNS.len(), 0..3);
    let few = || prop::collection::vec(1..PATTERNS.len(), 0..2);
    let times = || {
        prop::sample::select(vec![
            None,
            Some(0),
            Some(HOUR - 1),
            Some(HOUR),
            Some(HOUR + 1),
            Some(100 * HOUR),
        ])
    };
    let guard = || (few(), prop::sample::select(vec![None, Some(0), Some(HOUR), Some(2 * HOUR)]), 0..3_u32);
    let image = (0..REFERENCES.len(), times(), times(), prop::bool::weighted(0.2), any::<bool>(), 1..5_u32);
    (list(), any::<bool>(), [guard(), guard()], image, any::<bool>()).prop_map(
        |(remove, force_granted, guards, (reference, arrived, used, pinned, in_use, left), force)| Drawn {
            remove,
            force_granted,
            guards,
            reference,
            arrived,
            used,
            pinned,
            in_use,
            force,
            left,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Grant × guard × state: what is decided about a removal is what the rules say of it, one after the other.
    #[test]
    fn decides_by_the_rules(case in drawn()) {
        prop_assert_eq!(case.decided(), case.expected());
    }
}
