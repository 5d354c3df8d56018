//! What authors of policies type: new, build, check, bench, warm.

use std::path::Path;
use std::{env, fs};

use larder_tests::{find_component, has_all_languages, target};

use crate::harness::TestEnvironment;

fn environment() -> TestEnvironment {
    let test = TestEnvironment::missing();
    test.policy("keep-recent");
    test
}

/// A policy is described: what it says of itself, what it imports, what its config may have.
#[test]
fn checking_policies() {
    let test = environment();
    test.policy("disk-budget");
    assert_output!(
        "check",
        test.larder("policy check keep-recent.wasm disk-budget.wasm"),
        test.larder("policy check"),
    );
    let checked = test.larder("policy check keep-recent.wasm --format json").json();
    assert_eq!(checked[0]["description"]["name"], "keep-recent");
    assert_eq!(checked[0]["description"]["config_schema"]["properties"]["keep"]["default"], 3);
    assert_eq!(
        (&checked[0]["wit_version"], &checked[0]["problem"]),
        (&"0.2.0".into(), &serde_json::Value::Null)
    );
}

/// Whatever else is given gets one sentence that says what it is and what to do, and the others are looked at all the
/// same.
#[test]
fn checking_odd_files() {
    let test = environment();
    let policy = fs::read(test.directory().join("keep-recent.wasm")).expect("the policy");
    let newer = |bytes: &[u8]| {
        let (from, to) = (b"larder:image/policy@0.2.0", b"larder:image/policy@0.3.0");
        let mut bytes = bytes.to_vec();
        for start in 0..bytes.len() - from.len() {
            if bytes[start..].starts_with(from) {
                bytes[start..start + to.len()].copy_from_slice(to);
            }
        }
        bytes
    };
    // What looks random, and is the same every time.
    let random: Vec<u8> = (0..4000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let files: [(&str, &[u8]); 9] = [
        ("core.wasm", b"\0asm\x01\0\0\0"),
        ("cut.wasm", &policy[..5000]),
        ("empty.wasm", b""),
        ("./gzip.wasm.gz", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("hollow.wasm", b"\0asm\x0d\0\x01\0"),
        ("newer.wasm", &newer(&policy)),
        ("random.wasm", &random),
        ("./script.sh", b"#!/bin/sh\n"),
        ("./text.wat", b"(component)"),
    ];
    fs::create_dir(test.directory().join("directory.wasm")).expect("a directory");
    let mut names = vec!["directory.wasm", "missing.wasm"];
    for (name, bytes) in files {
        test.write(name, bytes);
        names.push(name);
    }
    for guest in ["foreign-sockets", "other-world", "other-types", "trap-in-describe", "schema-is-not-json"] {
        test.write(&format!("{guest}.wasm"), larder_tests::hostile_guest(guest));
    }
    let guests = "foreign-sockets.wasm other-world.wasm other-types.wasm trap-in-describe.wasm schema-is-not-json.wasm";
    assert_output!(
        "check_odd",
        test.larder(&format!("policy check {}", names.join(" "))),
        test.larder(&format!("policy check keep-recent.wasm {guests}")),
        test.larder("policy check core.wasm missing.wasm --format json"),
        test.larder("policy check missing.wasm"),
    );
}

/// The schema of a stranger's policy is shown as text, to people and in JSON, and comes back from that as it was.
#[test]
fn a_schema_does_not_reach_the_terminal() {
    let test = environment();
    test.write("odd.wasm", larder_tests::hostile_guest("schema-for-a-terminal"));
    let shown = test.larder("policy check odd.wasm");
    assert!(shown.stdout.contains("config   {\"a\":\"\u{fffd}2J\u{fffd}x\"}"), "{shown}");
    let json = test.larder("policy check odd.wasm --format json");
    assert!(!json.stdout.contains(['\u{9b}', '\u{202e}']), "{json}");
    assert_eq!(json.json()[0]["description"]["config_schema"]["a"], "\u{9b}2J\u{202e}x");
}

/// Compiled code is kept where it is told to, and found there by every command.
#[test]
fn warming() {
    let test = environment();
    test.write("text.wasm", "hello");
    test.write("counted.toml", "[limits]\nfuel = 1_000_000\n");
    assert_output!(
        "warm",
        test.larder("policy warm keep-recent.wasm --code-cache code"),
        test.larder("policy warm keep-recent.wasm text.wasm missing.wasm --code-cache code"),
        test.larder("policy warm keep-recent.wasm --code-cache code --grant counted.toml --format json"),
        test.larder("policy warm keep-recent.wasm"),
        test.larder("policy warm keep-recent.wasm --code-cache text.wasm"),
    );
    let entries = || fs::read_dir(test.directory().join("code")).expect("the code").count();
    assert_eq!(entries(), 2, "one for each kind of limits");
    assert_eq!(test.larder("policy check keep-recent.wasm --code-cache code").status, 0);
    let in_cache = test
        .command("policy check keep-recent.wasm")
        .env("XDG_CACHE_HOME", test.directory().join("caches"))
        .output()
        .expect("the program ended");
    assert!(in_cache.status.success(), "{in_cache:?}");
    assert_eq!(fs::read_dir(test.directory().join("caches/larder/code")).expect("the code").count(), 1);
    let by_variable = test
        .command("policy check keep-recent.wasm")
        .env("LARDER_CODE_CACHE", test.directory().join("code"))
        .output()
        .expect("the program ended");
    assert!(by_variable.status.success() && entries() == 2, "{by_variable:?}");
}

/// What is measured is measured over the cache that was asked for, and what can be counted is the same every time.
#[test]
fn benching() {
    let test = environment();
    let bench = || {
        test.larder("policy bench keep-recent.wasm --images 40 --runs 2 --config keep=2 --format json").json()
    };
    let first = bench();
    assert_eq!((&first["images"], &first["removals"], &first["runs"]), (&40.into(), &30.into(), &2.into()));
    for key in
        ["compile_us", "cached_start_us", "instantiate_us", "evaluate_us", "run_us", "memory_bytes", "fuel"]
    {
        assert!(first[key].as_u64().is_some_and(|value| value > 0), "{key} in {first}");
    }
    let second = bench();
    for key in ["fuel", "host_calls", "memory_bytes"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    let table = test.larder("policy bench keep-recent.wasm --images 16 --runs 1");
    for row in
        ["compile", "cached start", "instantiate", "evaluate, an image", "memory", "fuel", "host calls"]
    {
        assert!(table.stdout.lines().any(|line| line.starts_with(row)), "{row} in {table}");
    }
    test.write("tight.toml", "[grant]\nmax-removals = 1\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\n");
    assert_output!(
        "bench_refused",
        test.larder("policy bench keep-recent.wasm --config keep=0"),
        test.larder("policy bench keep-recent.wasm --grant tight.toml --images 100 --config keep=1"),
        test.larder("policy bench missing.wasm"),
        test.larder("policy bench keep-recent.wasm --images 99999999"),
        test.larder("policy bench keep-recent.wasm --runs 0"),
    );
}

/// A policy begins as a directory, for each language, and never over something else.
#[test]
fn beginning() {
    let test = TestEnvironment::missing();
    assert_output!(
        "new",
        test.larder("policy new demo --lang python"),
        test.larder("policy new demo --lang python"),
        test.larder("policy new Demo --lang python"),
        test.larder("policy new other --lang cobol"),
        test.larder("policy new other"),
        test.larder("policy new other --lang go --dir deep/down --format json"),
    );
    for language in ["rust", "c", "javascript"] {
        let begun = test.larder(&format!("policy new in-{language} --lang {language}"));
        assert_eq!(begun.status, 0, "{begun}");
    }
    for directory in ["demo", "deep/down", "in-rust", "in-c", "in-javascript"] {
        assert!(test.read(&format!("{directory}/policy.toml")).contains("language"), "{directory}");
        let untested = test.larder(&format!("policy test {directory}"));
        assert!(untested.stderr.contains("`larder policy build` makes"), "{untested}");
    }
}

/// What cannot be built is named, with what to do about it.
#[test]
fn building() {
    let test = TestEnvironment::missing();
    fs::create_dir(test.directory().join("broken")).expect("a directory");
    test.write("broken/policy.toml", "name = \"broken\"\nlang = \"c\"\n");
    test.larder("policy new demo --lang javascript");
    let without_programs = |arguments: &str| {
        let output =
            test.command(arguments).env("PATH", test.directory()).output().expect("the program ended");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (status, error) = without_programs("policy build demo --tools tools");
    assert_eq!(status, Some(1), "{error}");
    assert!(error.contains(" is missing, without which ") && error.contains("install "), "{error}");
    assert_output!(
        "build_refused",
        test.larder("policy build"),
        test.larder("policy build nowhere --format json"),
        test.larder("policy build broken --tools tools"),
        test.larder("policy build demo"),
    );
}

/// The copies of the contract and the SDK in a policy's directory are brought up to date, and nothing else of it.
#[test]
fn bringing_up_to_date() {
    let test = TestEnvironment::missing();
    test.larder("policy new demo --lang rust");
    assert_eq!(test.larder("policy update demo").stdout, "`demo` is up to date\n");
    for file in ["wit/world.wit", "vendor/larder-guest/src/lib.rs", "src/lib.rs"] {
        test.write(&format!("demo/{file}"), "mine");
    }
    let updated = test.larder("policy update demo");
    assert_eq!(updated.stdout, "vendor/larder-guest/src/lib.rs\nwit/world.wit\n", "{updated}");
    assert_eq!(test.read("demo/src/lib.rs"), "mine");
    assert_eq!(test.larder("policy update demo --format json").json()["changed"], serde_json::json!([]));
    assert_eq!(test.larder("policy update").status, 2);
}

/// The guide is printed as `docs/languages.md` has it, of one language or of all.
#[test]
fn explaining_languages() {
    let test = TestEnvironment::missing();
    let all = test.larder("policy languages").stdout;
    let go = test.larder("policy languages go").stdout;
    assert!(all.starts_with("# Policies and languages\n") && all.contains(&go));
    assert!(go.starts_with("## Go\n") && !go.contains("## Others"), "{go}");
    assert_eq!(test.larder("policy languages go --format json").json()["text"], go);
    assert_eq!(test.larder("policy languages cobol").status, 2);
}

/// Outside of the repository, on a machine that is set up for other builds, a new policy in each language is built, passes
/// its scenarios, and is explained on a home.
#[test]
fn new_policies_on_a_machine_set_up_for_other_builds() {
    let test = TestEnvironment::fixture();
    let directory = test.directory();
    fs::create_dir(directory.join(".cargo")).expect("a directory");
    test.write(
        ".cargo/config.toml",
        "[build]\nrustc-wrapper = \"/nonexistent\"\ntarget = \"no-such-target\"\nrustflags = [\"--no-such-flag\"]\n\
         [profile.release]\ndebug = true\nlto = false\npanic = \"unwind\"\n",
    );
    test.write("go.env", "GOFLAGS=-mod=vendor\nGOEXPERIMENT=nosuchexperiment\nGOOS=plan9\nGOWORK=off\n");
    for language in ["rust", "c", "javascript", "python", "go"] {
        // Where a policy in this language was built, another can be.
        let is_known = language == "rust" || find_component(&format!("keep-recent-{language}")).is_some();
        if !is_known || language != "rust" && !has_all_languages() {
            continue;
        }
        let run = |place: &Path, arguments: &str| {
            let mut command = test.command(arguments);
            command.current_dir(place);
            command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
            command
                .env("CARGO_PROFILE_RELEASE_DEBUG", "true")
                .env("GOENV", directory.join("go.env"))
                .env("LARDER_CODE_CACHE", target().join("tests-code"))
                .env("LARDER_TOOLS", target().join("tools"))
                .env("RUSTFLAGS", "--no-such-flag");
            let output = command.output().expect("the program starts");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let failed = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{language}: larder {arguments}\n{said}{failed}");
            said
        };
        run(&directory, &format!("policy new in-{language} --lang {language}"));
        let place = directory.join(format!("in-{language}"));
        run(&place, "policy build");
        assert!(run(&place, "policy test").ends_with(" passed, 0 failed\n"), "{language}");
        let explained = run(&place, &format!("policy explain in-{language}.wasm"));
        assert!(explained.contains("docker.io/acme/app00004:v7"), "{language}: {explained}");
    }
}
