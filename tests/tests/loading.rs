//! What is not a policy.

use larder::policy::{ByteSize, ComponentReport, Policy, PolicyEngine};
use larder_tests::{ENGINE, guest, run};

fn refused(bytes: &[u8]) -> String {
    run(Policy::load(&ENGINE, bytes)).expect_err("not a policy").to_string()
}

/// A component that is not a policy is refused in terms of WIT, with what it wants or lacks and what to do.
#[test]
fn other_components() {
    let table = [
        (
            r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#,
            "this policy imports wasi:sockets/tcp@0.2.0; policies get no network",
        ),
        (
            r#"(component (import "wasi:cli/stdout@0.2.3" (instance)))"#,
            "this policy imports wasi:cli/stdout@0.2.3; policies get no environment and no standard streams: `report.log` takes their place",
        ),
        (
            r#"(component (import "acme:tools/hammer" (instance)))"#,
            "this policy imports acme:tools/hammer; policies get nothing but `larder:image`",
        ),
        (
            r#"(component (import "larder:image/images@0.1.0" (instance)))"#,
            "this policy imports larder:image/images@0.1.0; this host speaks larder:image@0.2: rebuild the policy against its `wit/`",
        ),
        (
            r#"(component (import "larder:image/images@0.2.0" (instance (export "fly" (func))))
                (instance $i) (export "larder:image/policy@0.2.0" (instance $i)))"#,
            "this policy imports larder:image/images.fly; this version of `larder:image` does not have it: rebuild against its `wit/`",
        ),
        (
            r#"(component (instance $i) (export "larder:image/policy@0.3.0" (instance $i)))"#,
            "this policy exports larder:image/policy@0.3.0; this host speaks larder:image@0.2: rebuild the policy against its `wit/`",
        ),
        (
            r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
            "this is not a policy: a component of another world, which exports `wasi:cli/run@0.2.0`; a policy exports `larder:image/policy`: build it for the world `larder:image/image-policy`",
        ),
        (
            "(component)",
            "this is not a policy: a component of another world, which exports nothing; a policy exports `larder:image/policy`: build it for the world `larder:image/image-policy`",
        ),
        (
            r#"(component (instance $i) (export "larder:image/policy@0.2.0" (instance $i)))"#,
            "this is not a policy: a component whose `larder:image` has other types than this host's; rebuild it against this host's `wit/`",
        ),
        (
            r#"(component (import "larder:image/images@0.2.0" (instance (export "prune" (func))))
                (instance $i) (export "larder:image/policy@0.2.0" (instance $i)))"#,
            "this is not a policy: a component whose `larder:image` has other types than this host's; rebuild it against this host's `wit/`",
        ),
        (
            r#"(component (core module (memory i64 1)) (instance $i) (export "larder:image/policy@0.2.0" (instance $i)))"#,
            "this is not a policy: a component that is damaged, or uses what policies don't have (memory64 must be enabled for 64-bit memories (at offset 0x15)); build it again, without threads, 64-bit memories, exceptions and async",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(refused(&guest(text)), expected);
    }
}

/// A policy cut off anywhere is refused, and so are random bytes, with or without the first bytes of a component.
#[test]
fn cut_off_and_random_bytes() {
    let whole = guest("");
    for end in 0..whole.len() {
        match run(Policy::load(&ENGINE, &whole[..end])) {
            Err(error) => assert!(error.to_string().starts_with("this is not a policy: "), "{end}: {error}"),
            // Nothing is missing but what the format lets be missing: a custom section, whose number is 0.
            Ok(_) => assert_eq!(whole[end], 0, "{end}"),
        }
    }
    assert!(refused(&whole[..whole.len() - 1]).contains("cut off before its end"));
    // A xorshift generator: the same bytes every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        let length = (next() % 500) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, *b"\0asm\x0d\0\x01\0");
        }
        refused(&bytes);
        // One byte of a good policy is changed: anything may come of that, but a panic.
        let mut changed = whole.clone();
        let place = (next() as usize) % changed.len();
        changed[place] = next() as u8;
        let _ = run(Policy::load(&ENGINE, changed));
    }
}

/// Size is looked at before anything is compiled.
#[test]
fn large_components() {
    let engine = PolicyEngine::builder().max_component(ByteSize::kib(1)).build().expect("an engine");
    let error = run(Policy::load(&engine, [0; 2048])).expect_err("too large").to_string();
    assert_eq!(error, "this policy has 2.0 KiB; this host compiles at most 1.0 KiB");
}

/// A component is told apart from what is none without being compiled, with what it imports and exports.
#[test]
fn what_bytes_are() {
    let report = ComponentReport::of(&guest(
        r#"(import "larder:image/images@0.2.0" "list" (func $list (param i32)))"#,
    ));
    assert_eq!((report.kind.as_str(), report.wit_version.as_deref()), ("a component", Some("0.2.0")));
    assert!(report.imports.contains(&"larder:image/images@0.2.0".to_owned()), "{report:?}");
    assert_eq!(report.exports, ["larder:image/policy@0.2.0"]);
    let foreign = ComponentReport::of(&guest(r#"(component (import "wasi:cli/stdout@0.2.3" (instance)))"#));
    assert_eq!((foreign.imports, foreign.wit_version), (vec!["wasi:cli/stdout@0.2.3".to_owned()], None));
    for (bytes, kind) in [
        (&b"\x1f\x8b\x08"[..], "a gzip file"),
        (b"\0asm\x01\0\0\0", "a core WebAssembly module"),
        (b"\0asm\x0d\0\x01\0\x05", "a component that is cut off before its end"),
    ] {
        let report = ComponentReport::of(bytes);
        assert_eq!((report.kind.as_str(), report.size_bytes), (kind, bytes.len() as u64));
        assert!(report.imports.is_empty() && report.exports.is_empty());
    }
}
