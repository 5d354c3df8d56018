//! Scenarios at the command line: caches in files, and what a policy decides about them.

use std::fs;
use std::path::Path;

use larder_tests::has_all_languages;

use crate::harness::TestEnvironment;

/// No home, and the policy.
fn environment() -> TestEnvironment {
    let test = TestEnvironment::missing();
    test.policy("keep-recent");
    test
}

const PASSING: &str = r#"policy = "keep-recent.wasm"

[[scenario]]
name = "the newest stays"
config = { keep = 1 }
image = [{ reference = "acme/app:2", created = "1d" }, { reference = "acme/app:1", created = "2d" }]
expect = [
    { decision = "keep", reference = "acme/app:2", reason = "the newest of docker.io/acme/app" },
    { decision = "remove", reference = "acme/app:1", reason = "2nd newest of docker.io/acme/app, of which 1 is kept" },
]
"#;

const FAILING: &str = r#"# What this file is about.
policy = "keep-recent.wasm"
now = "2026-11-24T12:00:00Z"

[[scenario]]
name = "the newest stays" # a promise
config = { keep = 1 }

[scenario.layers]
base = "100MiB"

[[scenario.image]]
reference = "acme/app:3"
created = "1d"
layers = ["base"]

[[scenario.image]]
reference = "acme/app:2"
created = "2d"
sandboxes = ["web"]

[[scenario.image]]
reference = "acme/app:1"
created = "2026-11-01T00:00:00Z"

# Why this one goes.
[[scenario.expect]]
reference = "acme/app:1" # the oldest
decision = "remove"
reason = "3rd newest of docker.io/acme/app, of which 1 is kept"
force = true

# Why this one stays.
[[scenario.expect]]
decision = "remove"
reference = "acme/app:3"
reason = "nobody knows"

[[scenario]]
name = "a failure was expected"
config = { keep = 1 }
image = [{ reference = "acme/app:1", created = "1d" }]
fails = "policy-failed"
says = "no"

[[scenario]]
name = "a plan was expected"
config = { keep = 0 }
expect = [] # nothing is there

[[scenario]]
name = "in one line each"
config = { keep = 1 }
grant = { remove = ["**"], force = true, max-removals = 1 }
image = [
    { reference = "acme/app:2", created = "1d" },
    { reference = "acme/app:1", created = "2d" },
]
expect = [
    # the newest
    { decision = "remove", reference = "acme/app:2", reason = "the newest of docker.io/acme/app" },
]
"#;

/// Every policy of this repository decides as its scenarios say; a policy in another language as those of the policy
/// that it is.
#[test]
fn scenarios_of_the_policies() {
    let test = TestEnvironment::missing();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/policies");
    let mut tested = 0;
    for entry in fs::read_dir(&policies).expect("the policies") {
        let directory = entry.expect("an entry").path();
        let is_in_rust = directory.join("Cargo.toml").exists();
        if !is_in_rust && !has_all_languages() {
            continue;
        }
        let manifest = fs::read_to_string(directory.join("policy.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("a manifest");
        let name = manifest["name"].as_str().expect("a name");
        let own = directory.join("scenarios");
        let scenarios = match name.strip_prefix("keep-recent-") {
            Some(_) if !own.exists() => policies.join("keep-recent/scenarios"),
            _ => own,
        };
        let component = larder_tests::component(name);
        let output =
            test.larder(&format!("policy test {} --policy {}", scenarios.display(), component.display()));
        assert_eq!(output.status, 0, "{output}");
        assert!(output.stdout.ends_with(" passed, 0 failed\n"), "{output}");
        tested += 1;
    }
    assert!(tested >= 3, "{tested}");
}

/// What comes out otherwise than expected is shown line by line, and the status says that something did.
#[test]
fn failing_scenarios() {
    let test = environment();
    test.write("passing.toml", PASSING);
    test.write("failing.toml", FAILING);
    assert_output!(
        "scenarios",
        test.larder("policy test passing.toml"),
        test.larder("policy test passing.toml failing.toml"),
    );
    assert_output!("scenarios_json", test.larder("policy test failing.toml --format json"));
    assert_eq!(test.read("failing.toml"), FAILING, "nothing is written without being asked for");
}

/// What was seen is written in place of what was expected, the rest of the file as it was; afterwards the scenarios
/// pass, and another update leaves every byte.
#[test]
fn updating() {
    let test = environment();
    test.write("failing.toml", FAILING);
    let updated = test.larder("policy test failing.toml --update");
    assert_eq!(updated.status, 0, "{updated}");
    assert!(updated.stdout.ends_with("0 passed, 0 failed, 4 updated\n"), "{updated}");
    let text = test.read("failing.toml");
    insta::assert_snapshot!("updated", text);
    let again = test.larder("policy test failing.toml --update --format json").json();
    assert_eq!((&again["passed"], &again["updated"]), (&4.into(), &0.into()));
    assert_eq!(test.read("failing.toml"), text);
    test.write("passing.toml", PASSING);
    test.larder("policy test passing.toml --update");
    assert_eq!(test.read("passing.toml"), PASSING);
}

/// A scenario without expectation is refused, until it is updated.
#[test]
fn nothing_expected() {
    let test = environment();
    let text = "[[scenario]]\nname = \"new\"\nimage = [{ reference = \"acme/app:1\", created = \"1d\" }]\n";
    test.write("new.toml", text);
    assert_output!(
        "nothing_expected",
        test.larder("policy test new.toml --policy keep-recent.wasm"),
        test.larder("policy test new.toml --policy keep-recent.wasm --update"),
        test.larder("policy test new.toml --policy keep-recent.wasm"),
    );
    insta::assert_snapshot!("nothing_expected_updated", test.read("new.toml"));
}

/// Scenarios are found in files, in directories, and in a directory `scenarios` in them; what is missing is named.
#[test]
fn where_scenarios_are() {
    let test = environment();
    for directory in ["demo/scenarios", "loose", "empty"] {
        fs::create_dir_all(test.directory().join(directory)).expect("a directory");
    }
    test.write("demo/policy.toml", "name = \"demo\"\n");
    test.write("demo/scenarios/b.toml", PASSING.replace("keep-recent", "../../keep-recent"));
    test.write("demo/scenarios/a.toml", PASSING.replace("policy = \"keep-recent.wasm\"", ""));
    test.write("loose/a.toml", PASSING.replace("keep-recent", "../keep-recent"));
    test.write("loose/gone.toml", PASSING.replace("keep-recent", "gone"));
    test.write("loose/text.wasm", "hello");
    assert_output!(
        "where_scenarios_are",
        test.larder("policy test loose/a.toml demo/scenarios/b.toml"),
        test.larder("policy test demo --policy keep-recent.wasm"),
        test.larder("policy test demo"),
        test.larder("policy test loose/gone.toml"),
        test.larder("policy test loose/a.toml --policy loose/text.wasm"),
        test.larder("policy test empty"),
        test.larder("policy test"),
        test.larder("policy test nowhere"),
    );
}

/// Whatever is wrong with a file is said with the line, the key and what was probably meant, before anything runs.
#[test]
fn slips() {
    let test = environment();
    let slips = [
        "",
        "scenario = 1",
        "polcy = \"x.wasm\"",
        "now = \"yesterday\"",
        "now = \"1d\"\n[[scenario]]\nname = \"a\"\nexpect = []",
        "[[scenario]]\nexpect = []",
        "[[scenario]]\nname = \"a\"\nexpect = []\n[[scenario]]\nname = \"a\"\nexpect = []",
        "[[scenario]]\nname = \"a\"\nconfg = {}",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a//b\"",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\ncreated = \"1 day\"",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\ncreated = \"999999999999999d\"",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\nsize = -12",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\npined = true",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\norigin = \"archiv\"",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\n[[scenario.image]]\nreference = \"a:1\"",
        "[[scenario]]\nname = \"a\"\nlayers = { base = \"1MiB\" }\n[[scenario.image]]\nreference = \"a:1\"\nlayers = [\"bse\"]",
        "[[scenario]]\nname = \"a\"\nlayers = { x = \"1B\" }\nimage = [\n{ reference = \"a:1\", manifest = \"m\" },\n{ reference = \"a:2\", manifest = \"m\", layers = [\"x\"] }]",
        "[[scenario]]\nname = \"a\"\nlayers = { base = \"1 MB\" }",
        "[[scenario]]\nname = \"a\"\n[scenario.disk]\ncapasity = \"1GiB\"",
        "[[scenario]]\nname = \"a\"\n[scenario.grant]\nremov = []",
        "[[scenario]]\nname = \"a\"\n[scenario.grant]\nremove = [\"[ab]\"]",
        "[[scenario]]\nname = \"a\"\n[scenario.limits]\nstack = \"1GiB\"",
        "[[scenario]]\nname = \"a\"\nconfig = { ratio = nan }",
        "[[scenario]]\nname = \"a\"\nexpect = [{ decision = \"keep\", reference = \"a:1\", reason = \"\" }]",
        "[[scenario]]\nname = \"a\"\n[[scenario.image]]\nreference = \"a:1\"\n[[scenario.expect]]\ndecision = \"kept\"\nreference = \"a:1\"\nreason = \"\"",
        "[[scenario]]\nname = \"a\"\nimage = [{ reference = \"a:1\" }]\nexpect = [\n{ decision = \"keep\", reference = \"a:1\", reason = \"\" },\n{ decision = \"keep\", reference = \"a:1\", reason = \"\" }]",
        "[[scenario]]\nname = \"a\"\nexpect = []\nfails = \"policy-failed\"",
        "[[scenario]]\nname = \"a\"\nfails = \"over-buget\"",
        "[[scenario]]\nname = \"a\"\nexpect = []\nsays = \"no\"",
        "[[scenario]\nname",
    ];
    let said: Vec<String> = slips
        .iter()
        .map(|slip| {
            test.write("slip.toml", slip);
            let output = test.larder("policy test slip.toml --policy keep-recent.wasm");
            assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{slip}\n{output}");
            format!("{slip}\n>>> {}", output.stderr)
        })
        .collect();
    insta::assert_snapshot!("slips", said.join("\n"));
}
