//! Guests that misbehave, one crime each: what it gets, and that the host lives on.

use std::time::{Duration, Instant};

use super::guest::{ENGINE, EXPLAIN, GET, Guest, LIST, LOG, RECLAIMABLE, REMOVE};
use super::{NOW, cache, everything};
use crate::policy::{ByteSize, Evaluation, GrantDocument, Limits, Policy, PolicyError, PolicyRun};

fn limits() -> Limits {
    Limits::default()
        .with_time(Duration::from_secs(1))
        .with_memory(ByteSize::mib(2))
        .with_host_calls(10_000_u64)
}

fn run(guest: &Guest<'_>) -> Result<Evaluation, PolicyError> {
    let policy = Policy::load(&ENGINE, &guest.component())?;
    let grant: GrantDocument = everything().with_limits(limits());
    policy.evaluate(Box::new(cache()), &PolicyRun::new(NOW).with_grant(grant))
}

const FOREVER: &str = "(loop $l (br $l))";
const TEXT: &str = r#"(data (i32.const 4096) "docker.io/acme/gone:1")"#;
const RECURSE: &str = "(func $deep (param i32) (result i32)
    (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";

/// One guest a crime, and the beginning of what the operator reads.
fn crimes() -> Vec<(&'static str, Guest<'static>, &'static str)> {
    let guest = Guest::default;
    vec![
        ("endless loop", Guest { evaluate: FOREVER, ..guest() }, "limit time 1s"),
        (
            "endless loop in a start function",
            Guest { extra: "(func $begin (loop $l (br $l))) (start $begin)", ..guest() },
            "limit time 5s",
        ),
        (
            "endless loop in the allocator",
            Guest { imports: &[LIST], realloc: FOREVER, evaluate: "(call $list (i32.const 8192))", ..guest() },
            "limit time 1s",
        ),
        (
            "recursion without end",
            Guest { extra: RECURSE, evaluate: "(drop (call $deep (i32.const 0)))", ..guest() },
            "limit stack 512KiB",
        ),
        (
            "memory bomb",
            Guest {
                evaluate: "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 8)) (i32.const -1)))) unreachable",
                ..guest()
            },
            "limit memory 2MiB",
        ),
        (
            "table bomb",
            Guest {
                extra: "(table $t 1 funcref)",
                evaluate: "(loop $l
                    (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1))))
                    unreachable",
                ..guest()
            },
            "limit table-elements 1000000",
        ),
        (
            "log flood",
            Guest {
                imports: &[LOG],
                evaluate: "(loop $l (call $log (i32.const 1) (i32.const 4096) (i32.const 60000)) (br $l))",
                ..guest()
            },
            "limit log 256KiB",
        ),
        (
            "flood of empty log lines",
            Guest {
                imports: &[LOG],
                evaluate: "(loop $l (call $log (i32.const 1) (i32.const 0) (i32.const 0)) (br $l))",
                ..guest()
            },
            "limit host-calls 10000",
        ),
        (
            "call flood",
            Guest {
                imports: &[GET],
                extra: TEXT,
                evaluate: "(loop $l (call $get (i32.const 4096) (i32.const 21) (i32.const 8192)) (br $l))",
                ..guest()
            },
            "limit host-calls 10000",
        ),
        (
            "huge string",
            Guest {
                imports: &[GET],
                evaluate: "(drop (memory.grow (i32.const 16)))
                    (call $get (i32.const 4096) (i32.const 70000) (i32.const 8192))",
                ..guest()
            },
            "limit string 64KiB",
        ),
        (
            "huge reason",
            Guest {
                imports: &[EXPLAIN],
                evaluate: "(drop (memory.grow (i32.const 16)))
                    (call $explain (i32.const 4096) (i32.const 4) (i32.const 4096) (i32.const 70000))",
                ..guest()
            },
            "limit string 64KiB",
        ),
        (
            "string past the end of its memory",
            Guest {
                imports: &[GET],
                evaluate: "(call $get (i32.const 4096) (i32.const 0x7fffffff) (i32.const 8192))",
                ..guest()
            },
            "trap: it handed over what the contract does not allow",
        ),
        (
            "string that is not UTF-8",
            Guest {
                imports: &[GET],
                extra: r#"(data (i32.const 4096) "\ff\fe")"#,
                evaluate: "(call $get (i32.const 4096) (i32.const 2) (i32.const 8192))",
                ..guest()
            },
            "trap: it handed over what the contract does not allow",
        ),
        (
            "list past the end of its memory",
            Guest {
                imports: &[RECLAIMABLE],
                evaluate: "(call $reclaimable (i32.const 4096) (i32.const 0x7ffffff) (i32.const 8192))",
                ..guest()
            },
            "trap: it handed over what the contract does not allow",
        ),
        (
            "list of many views of one string",
            Guest {
                imports: &[RECLAIMABLE],
                // 2000 times the same 60,000 bytes: 120 MB for the host, 16 KB for the guest.
                evaluate: "(drop (memory.grow (i32.const 1)))
                    (loop $l
                    (i32.store offset=4096 (i32.mul (local.get $i) (i32.const 8)) (i32.const 65536))
                    (i32.store offset=4100 (i32.mul (local.get $i) (i32.const 8)) (i32.const 60000))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $l (i32.lt_u (local.get $i) (i32.const 2000))))
                    (call $reclaimable (i32.const 4096) (i32.const 2000) (i32.const 24576))",
                ..guest()
            },
            "limit transfer 64MiB",
        ),
        (
            "result pointer outside of memory",
            Guest {
                imports: &[GET],
                extra: TEXT,
                evaluate: "(call $get (i32.const 4096) (i32.const 21) (i32.const 0x7ffffff0))",
                ..guest()
            },
            "trap: ",
        ),
        ("trap in evaluate", Guest { evaluate: "unreachable", ..guest() }, "trap: it gave up"),
        (
            "division by zero",
            Guest { evaluate: "(drop (i32.div_u (i32.const 1) (local.get $i)))", ..guest() },
            "trap: it divided by zero",
        ),
        (
            "trap in the allocator",
            Guest { imports: &[LIST], realloc: "unreachable", evaluate: "(call $list (i32.const 8192))", ..guest() },
            "trap: it gave up",
        ),
        ("trap in describe", Guest { describe: "unreachable", ..guest() }, "trap: it gave up"),
        ("endless describe", Guest { describe: FOREVER, ..guest() }, "limit time 5s"),
        (
            "logging from describe",
            Guest {
                imports: &[LOG],
                describe: "(call $log (i32.const 1) (i32.const 0) (i32.const 0))",
                ..guest()
            },
            "trap: it called `report.log`, and `describe` has access to nothing",
        ),
        (
            "trusting an answer in describe",
            Guest {
                imports: &[GET],
                extra: TEXT,
                // 8 is the alignment of the payload, 2 the case `unsupported`.
                describe: "(call $get (i32.const 4096) (i32.const 21) (i32.const 8192))
                    (if (i32.and (i32.load8_u (i32.const 8192)) (i32.eq (i32.load8_u (i32.const 8200)) (i32.const 2)))
                        (then (unreachable)))",
                ..guest()
            },
            "trap: it gave up",
        ),
        ("a name with a slash", Guest { name: "../..", ..guest() }, "description name"),
    ]
}

fn verdict(result: Result<Evaluation, PolicyError>) -> String {
    match result {
        Ok(_) => "a plan".to_owned(),
        Err(PolicyError::Limit { limit, value, .. }) => format!("limit {limit} {value}"),
        Err(PolicyError::Trapped { cause, .. }) => format!("trap: {cause}"),
        Err(PolicyError::InvalidDescription { field, .. }) => format!("description {field}"),
        Err(other) => format!("{other:?}"),
    }
}

/// Each crime ends its run with the limit or the reason that the table says, one after another and all at once, and
/// an honest policy still works.
#[test]
fn every_crime_gets_what_it_deserves() {
    let start = Instant::now();
    for (crime, guest, expected) in crimes() {
        // What ends in `describe` has its default of five seconds: those run once, below.
        if expected != "limit time 5s" {
            let verdict = verdict(run(&guest));
            assert!(verdict.starts_with(expected), "{crime}: {verdict}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(60), "limits end runs: {:?}", start.elapsed());
    std::thread::scope(|scope| {
        for (crime, guest, expected) in crimes() {
            scope.spawn(move || {
                let verdict = verdict(run(&guest));
                assert!(verdict.starts_with(expected), "{crime}: {verdict}");
            });
        }
    });
    run(&Guest::default()).expect("a plan");
}

/// A guest that removes what never existed, what it cannot see, and the same image twice is told so each time, and
/// what it may do still happens.
#[test]
fn lies_are_answered() {
    // An answer is ok (0) or an error, whose case stands at 8 bytes past it.
    let expect = |text: i32, length: i32, case: i32| {
        let wanted = if case < 0 {
            "(i32.ne (i32.load8_u (i32.const 8192)) (i32.const 0))".to_owned()
        } else {
            format!(
                "(i32.or (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1))
                    (i32.ne (i32.load8_u (i32.const 8196)) (i32.const {case})))"
            )
        };
        format!(
            "(call $remove (i32.const {text}) (i32.const {length}) (i32.const 0) (i32.const 8192))
             (if {wanted} (then unreachable))"
        )
    };
    const NOT_FOUND: i32 = 0;
    const INVALID: i32 = 4;
    let script = [
        expect(4096, 21, NOT_FOUND), // never existed
        expect(4128, 24, NOT_FOUND), // hidden
        expect(4160, 20, -1),        // may be removed
        expect(4160, 20, NOT_FOUND), // twice
        expect(4192, 3, INVALID),    // not a reference
        expect(4096, 0, INVALID),
    ];
    let guest = Guest {
        imports: &[REMOVE],
        extra: r#"(data (i32.const 4096) "docker.io/acme/gone:1")
            (data (i32.const 4128) "docker.io/other/secret:1")
            (data (i32.const 4160) "docker.io/acme/app:2")
            (data (i32.const 4192) "A B")"#,
        evaluate: &script.join("\n"),
        ..Guest::default()
    };
    let grant = everything();
    let read = grant.grant.clone().with_read(vec!["docker.io/acme/**".parse().expect("a pattern")]);
    let policy = Policy::load(&ENGINE, &guest.component()).expect("a policy");
    let run = PolicyRun::new(NOW).with_grant(grant.with_grant(read));
    let plan = policy.evaluate(Box::new(cache()), &run).expect("a plan").plan;
    assert_eq!(plan.removals().count(), 1);
    assert!(plan.entries.iter().all(|entry| !entry.reference.contains("secret")), "hidden in the plan too");
}

/// A guest that breaks off is reported with its own functions, innermost first.
#[test]
fn a_backtrace_names_the_guests_functions() {
    let guest = Guest {
        extra: "(func $_ZN4acme5panic17h0123456789abcdefE (unreachable))
            (func $decide (call $_ZN4acme5panic17h0123456789abcdefE))",
        evaluate: "(call $decide)",
        ..Guest::default()
    };
    let Err(PolicyError::Trapped { during, backtrace, .. }) = run(&guest) else { panic!("no trap") };
    assert_eq!(during, "evaluate");
    assert_eq!(backtrace, ["acme::panic", "decide", "evaluate"]);
}

/// A guest that can live with less memory than it asks for is not punished for asking.
#[test]
fn a_refused_page_is_not_the_end() {
    let guest = Guest {
        evaluate: "(if (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))",
        ..Guest::default()
    };
    run(&guest).expect("a plan");
}

/// The deadline counts while a guest waits for the host, and a run that outlasts it makes no plan.
#[test]
fn a_slow_cache_counts() {
    struct Slow(crate::state::MemoryCache);
    impl crate::state::CacheSource for Slow {
        fn images(&mut self) -> crate::MicrosandboxResult<Vec<crate::state::ImageState>> {
            self.0.images()
        }
        fn detail(&mut self, reference: &str) -> crate::MicrosandboxResult<crate::image::ImageDetail> {
            self.0.detail(reference)
        }
        fn costs(&mut self) -> crate::MicrosandboxResult<crate::state::CostGraph> {
            // Waiting is what this test is about: it is the slow disk.
            std::thread::sleep(Duration::from_millis(80));
            self.0.costs()
        }
        fn disk(&mut self) -> crate::MicrosandboxResult<crate::state::DiskStatus> {
            self.0.disk()
        }
    }
    let guest = Guest {
        imports: &[RECLAIMABLE],
        evaluate: "(call $reclaimable (i32.const 4096) (i32.const 0) (i32.const 8192))",
        ..Guest::default()
    };
    let policy = Policy::load(&ENGINE, &guest.component()).expect("a policy");
    let grant = everything().with_limits(limits().with_time(Duration::from_millis(20)));
    let result = policy.evaluate(Box::new(Slow(cache())), &PolicyRun::new(NOW).with_grant(grant));
    assert_eq!(verdict(result), "limit time 20ms");
}
