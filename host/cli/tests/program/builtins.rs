//! Policies that come with the program. A program that is built with `LARDER_BUILTIN_POLICIES` has those of that
//! directory, any other one has none: these tests hold for both.

use std::fs;
use std::path::Path;

use crate::harness::TestEnvironment;

/// The directory of the policies that the program was built with.
fn built_with() -> Option<&'static Path> {
    option_env!("LARDER_BUILTIN_POLICIES").filter(|directory| !directory.is_empty()).map(Path::new)
}

/// The names of the policies that the program was built with, sorted.
fn names() -> Vec<String> {
    let files = built_with().into_iter().flat_map(|directory| fs::read_dir(directory).expect("the policies"));
    let files = files.map(|file| file.expect("a file").path());
    let policies = files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    let mut names: Vec<_> =
        policies.map(|file| file.file_stem().expect("a name").to_str().expect("text").to_owned()).collect();
    names.sort();
    names
}

/// A name that no policy has is a usage error that says which names there are, and how a file is named.
#[test]
fn unknown_names() {
    let test = TestEnvironment::missing();
    let arguments = [
        "prune --policy keep-everything --dry-run",
        "policy check keep-everything",
        "policy test --policy keep-everything",
        "policy bench keep-everything",
        "policy explain keep-everything",
        "policy warm keep-everything",
        "policy list --schema keep-everything",
    ];
    let names: Vec<_> = names().iter().map(|name| format!("`{name}`")).collect();
    let there_are = match names.as_slice() {
        [] => "this program was built without policies, `cargo xtask build` builds one with them".to_owned(),
        [only] => format!("there is {only}"),
        [first @ .., last] => format!("there are {} and {last}", first.join(", ")),
    };
    let hint = format!("{there_are}; a file is named by its path: `./keep-everything`");
    for arguments in arguments {
        let refused = test.larder(arguments);
        assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{refused}");
        assert_eq!(
            refused.stderr,
            format!("error: there is no policy `keep-everything` in this program\nhint: {hint}\n")
        );
        let json = test.larder(&format!("{arguments} --format json"));
        let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("an object");
        assert_eq!(
            (json.status, error["kind"].as_str(), error["hint"].as_str()),
            (2, Some("usage"), Some(&*hint))
        );
    }
}

/// A program without policies says so, and how there would be some.
#[test]
fn no_policies() {
    if built_with().is_some() {
        return;
    }
    let test = TestEnvironment::missing();
    assert_output!(
        "no_builtins",
        test.larder("policy list"),
        test.larder("policy list --format json"),
        test.larder("prune --policy keep-recent --dry-run"),
    );
}

/// Every policy that comes with the program is listed, is called what it calls itself, and is taken by its name as it
/// is by its path.
#[test]
fn policies() {
    let Some(directory) = built_with() else { return };
    let test = TestEnvironment::fixture();
    let list = test.larder("policy list");
    assert_eq!((list.status, list.stderr.as_str()), (0, ""), "{list}");
    let rows = list.stdout.lines().skip(1).map(|row| row.split(' ').next().unwrap_or_default());
    assert_eq!(rows.collect::<Vec<_>>(), names());

    let records = test.larder("policy list --format json").json();
    for (name, record) in names().iter().zip(records.as_array().expect("records")) {
        let file = directory.join(name).with_extension("wasm");
        let checked = test.larder(&format!("policy check {} --format json", file.display())).json();
        let (description, hash) = (&checked[0]["description"], checked[0]["hash"].as_str().expect("a hash"));
        for key in ["name", "version", "summary", "config_schema"] {
            assert_eq!(record[key], description[key], "{key} of {name}");
        }
        assert_eq!(record["name"], *name);
        assert_eq!(Some(hash), record["sha256"].as_str().map(|hash| format!("sha256:{hash}")).as_deref());
        assert_eq!(record["bytes"], checked[0]["size_bytes"]);

        let by_name = test.larder(&format!("policy check {name} --format json")).json();
        assert_eq!((&by_name[0]["policy"], &by_name[0]["hash"]), (&record["name"], &checked[0]["hash"]));
    }

    let plan = |policy: &str| {
        test.larder(&format!("prune --policy {policy} --config keep=2 --dry-run --format json"))
    };
    let (by_name, by_path) =
        (plan("keep-recent"), plan(&format!("{}/keep-recent.wasm", directory.display())));
    assert_eq!(by_name.status, 0, "{by_name}");
    assert_eq!(by_name.stdout, by_path.stdout);
    assert_output!(
        "builtin",
        test.larder("policy list --schema keep-recent"),
        test.larder("policy explain keep-recent --config keep=0"),
    );
}
