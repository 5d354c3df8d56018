//! The guard at the command line: what stays, however a clean-up was decided and whenever it is done, and what an operator
//! is told about it.

use std::fs;

use serde_json::{Value, json};

use crate::harness::TestEnvironment;

const PRUNE: &str = "prune --policy keep-recent.wasm --config keep=2 --grant grant.toml";

/// The fixture with the policy, and a grant for everything of acme's beside it.
fn environment() -> TestEnvironment {
    let test = TestEnvironment::fixture();
    test.policy("keep-recent");
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/**\"]\n");
    test
}

fn guard(test: &TestEnvironment, text: &str) {
    fs::write(test.home.path().join("larder.toml"), text).expect("the guard");
}

fn left(test: &TestEnvironment, repository: &str) -> i64 {
    test.home.count(&format!("SELECT count(*) FROM image_ref WHERE reference LIKE '{repository}:%'"))
}

/// An image that was pulled a minute ago under an old tag stays under `min-age`, with a policy and without.
#[test]
fn an_image_that_was_pulled_again_is_young() {
    let test = environment();
    test.home.execute(
        "UPDATE manifest SET created_at = '2026-11-24 11:59:00'
          WHERE id = (SELECT manifest_id FROM image_ref WHERE reference = 'docker.io/acme/app00003:v0')",
    );
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00003\"]\n[guard]\nmin-age = \"1h\"\n");
    let entry = |plan: &Value| {
        let entries = plan["entries"].as_array().expect("entries").clone();
        entries
            .into_iter()
            .find(|entry| entry["reference"] == "docker.io/acme/app00003:v0")
            .expect("an entry")
    };
    let plan = test.larder(&format!("{PRUNE} --dry-run --format json")).json();
    assert_eq!(entry(&plan)["decision"], "keep");
    guard(&test, "[guard]\nmin-age = \"1h\"\n");
    let plan = test.larder("prune --dry-run --format json").json();
    assert_eq!(entry(&plan)["reason"], "kept by the guard: it is younger than 1h");
}

/// A pattern protects what it says, one that can protect nothing is refused with what was probably meant, and one that
/// matched nothing is a warning.
#[test]
fn what_is_protected() {
    let test = environment();
    let kept = |pattern: &str| {
        guard(&test, &format!("[guard]\nprotect = [\"{pattern}\"]\n"));
        let plan = test.larder(&format!("{PRUNE} --dry-run --format json"));
        assert_eq!((plan.status, plan.stderr.as_str()), (0, ""), "{plan}");
        let kept = plan.json()["entries"].as_array().expect("entries").clone().into_iter().filter(|entry| {
            entry["decision"] == "keep" && entry["reference"].as_str().expect("a text").contains("app00003:")
        });
        kept.count()
    };
    for pattern in ["docker.io/acme/*", "docker.io/acme/app00003", "docker.io/acme/app00003:*"] {
        assert_eq!(kept(pattern), 8, "{pattern}");
    }
    assert_eq!(kept("docker.io/acme/app00004"), 2);

    guard(&test, "[guard]\nprotect = [\"docker.io/acme/gone\"]\n");
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00003\", \"docker.io/acme/nothing\"]\n");
    let unmatched = test.larder(&format!("{PRUNE} --dry-run --format json")).json()["unmatched"].clone();
    assert_eq!(
        unmatched,
        json!([
            { "list": "protect", "pattern": "docker.io/acme/gone" },
            { "list": "remove", "pattern": "docker.io/acme/nothing" },
        ])
    );
    let warned = test.larder(&format!("{PRUNE} --dry-run"));
    test.write("grant.toml", "[grant]\nremove = [\"acme/app00003:*\"]\n");
    let refused = test.larder(&format!("{PRUNE} --dry-run"));
    guard(&test, "[guard]\nprotect = [\"acme/app00003:*\"]\n");
    assert_output!(
        "patterns",
        refused,
        test.larder("prune --yes"),
        test.larder("prune --dry-run --format json"),
        test.larder("ls --unused acme/app00003 --sort reference"),
    );
    assert!(
        warned
            .stderr
            .contains("`docker.io/acme/gone` in `protect` of `[guard]` matches no image of this home"),
        "{warned}"
    );
}

/// A plain prune keeps to the guard of the home and says why; a removal by name, and a pin, stand above it.
#[test]
fn a_plain_prune_is_guarded() {
    let test = environment();
    guard(&test, "[guard]\nprotect = [\"docker.io/acme/app00003\"]\nkeep = 7\n");
    assert_output!(
        "guarded_prune",
        test.larder("prune --dry-run"),
        test.larder("prune --yes"),
        test.larder("rm docker.io/acme/app00003:v0 --yes"),
        test.larder("explain docker.io/acme/app00003:v1"),
    );
    assert_eq!([left(&test, "docker.io/acme/app00003"), left(&test, "docker.io/acme/app00004")], [7, 7]);
}

/// A repository keeps its last references, also where the one that a plan counted on has gone since.
#[test]
fn the_last_references_stay() {
    let test = environment();
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00003\"]\n[guard]\nkeep = 1\n");
    let planned =
        test.larder("prune --policy keep-recent.wasm --config keep=1 --grant grant.toml --plan plan.json -q");
    assert_eq!(planned.status, 0, "{planned}");
    assert_eq!(test.larder("rm docker.io/acme/app00003:v7 --yes -q").status, 0);
    assert_output!("last_references", test.larder("apply plan.json --yes"));
    assert_eq!(left(&test, "docker.io/acme/app00003"), 1);
}

/// A plan that was edited into what nobody allowed is refused as a whole.
#[test]
fn edited_plans_are_refused() {
    let test = environment();
    test.larder(&format!("{PRUNE} --plan plan.json -q"));
    assert_eq!(test.larder("pin docker.io/acme/app00003:v0 -q").status, 0);
    let plan: Value = serde_json::from_str(&test.read("plan.json")).expect("a plan");
    let edited = |name: &str, edit: fn(&mut Value)| {
        let mut plan = plan.clone();
        edit(&mut plan);
        test.write(name, plan.to_string());
        test.larder(&format!("apply {name} --yes"))
    };
    fn force(plan: &mut Value) {
        let entries = plan["entries"].as_array_mut().expect("entries");
        entries
            .iter_mut()
            .filter(|entry| entry["decision"] == "remove")
            .for_each(|entry| entry["force"] = true.into());
    }
    fn without_policy(plan: &mut Value) {
        let plan = plan.as_object_mut().expect("a plan");
        ["policy", "config", "grant"].iter().for_each(|key| drop(plan.remove(*key)));
    }
    assert_output!(
        "edited_plans",
        edited("forced.json", force),
        edited("orphaned.json", |plan| {
            without_policy(plan);
            force(plan);
        }),
        edited("renamed.json", |plan| {
            without_policy(plan);
            plan["made_by"] = "removal".into();
            force(plan);
        }),
        edited("wider.json", |plan| plan["grant"]["grant"]["remove"] = json!(["docker.io/acme/app00004"])),
        edited("more.json", |plan| plan["grant"]["grant"]["max-removals"] = json!(3)),
    );
    assert_eq!(test.home.count("SELECT count(*) FROM image_ref"), 41);
}

/// A plan is applied to the home that it was made for and to no other, and says when and by what it was made.
#[test]
fn plans_know_where_they_come_from() {
    let test = environment();
    test.larder(&format!("{PRUNE} --plan plan.json -q"));
    let other = environment();
    other.write("plan.json", test.read("plan.json"));
    let refused = other.larder("apply plan.json --yes");
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("the plan is for another home, that at `"), "{refused}");
    assert_eq!(other.home.count("SELECT count(*) FROM image_ref"), 41);

    let shown = test.larder("apply plan.json");
    assert_eq!(shown.status, 2, "there is nobody to ask");
    let mut plan: Value = serde_json::from_str(&test.read("plan.json")).expect("a plan");
    plan["created_at"] = "2026-08-24T12:00:00Z".into();
    test.write("old.json", plan.to_string());
    let applied = test.larder("apply old.json --yes");
    assert!(
        applied.stderr.contains("this plan was made 3 months ago by keep-recent 0.1.0 for `[HOME]`"),
        "{applied}"
    );
    assert_eq!(applied.status, 0, "{applied}");
    assert!(!applied.stderr.contains("clock"), "{applied}");
    for (made, is_odd) in [("2026-11-24T12:04:00Z", false), ("2026-11-25T12:00:00Z", true)] {
        plan["created_at"] = made.into();
        test.write("early.json", plan.to_string());
        let early = test.larder("apply early.json --yes");
        let warning = format!(
            "the plan says that it was made at {made}, and it is 2026-11-24T12:00:00Z here: one of the two clocks is wrong"
        );
        assert_eq!(early.stderr.contains(&warning), is_odd, "{early}");
    }
}

/// That the guard does its work is no failure, and neither is what a policy may not see; a removal that the grant refuses
/// is, where nothing went. Denials are summed up by right and repository for people, and whole for programs.
#[test]
fn what_was_denied() {
    let test = environment();
    guard(&test, "[guard]\nmin-age = \"1000d\"\n");
    assert_eq!(test.larder(&format!("{PRUNE} --yes")).status, 0);
    guard(&test, "");
    let fails = "prune --policy keep-recent.wasm --config keep=0 --grant grant.toml --yes";
    let refused = test.larder(fails);
    assert_eq!(refused.status, 2, "{refused}");
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/**\"]\nmax-removals = 1\n");
    let over = test.larder(&format!("{PRUNE} --yes"));
    assert_eq!(over.status, 6, "{over}");
    assert!(over.stderr.contains("`max-removals` is 1, it wants at least 2\n"), "{over}");
    let suggest =
        "`larder policy explain keep-recent.wasm --config keep=2 --suggest-grant` says how much it wants";
    assert!(over.stderr.contains(suggest), "{over}");
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00001\"]\n[guard]\nkeep = 8\n");
    let denied = test.larder(&format!("{PRUNE} --yes"));
    assert_eq!(denied.status, 6, "{denied}");
    test.write("grant.toml", "[grant]\nremove = [\"docker.io/acme/app00003\"]\n");
    let report = test.larder(&format!("{PRUNE} --yes --format json"));
    assert_eq!(report.status, 0, "{report}");
    assert_eq!(report.json()["denials"].as_array().map(Vec::len), Some(22));
    assert_eq!(report.json()["policy"]["name"], "keep-recent");
    assert_output!("denials", denied, test.larder("history"));
    let history = test.larder("history --format json").json();
    assert_eq!(history[0]["config"], json!({ "keep": 2 }));
    assert_eq!(history[0]["grant"]["grant"]["remove"], json!(["docker.io/acme/app00003"]));
    assert!(history[0]["cost"]["duration_ms"].is_u64(), "{history}");
    let problems: Vec<_> = [1, 2, 3].iter().map(|&run| history[run]["problem"].clone()).collect();
    assert_eq!(problems[0], "the grant allows none of what the policy wants to remove");
    let over = "the policy wants to remove more than its grant allows: `max-removals` is 1";
    assert!(problems[1].as_str().expect("a text").starts_with(over), "{history}");
    assert!(
        problems[2].as_str().expect("a text").starts_with("the config of `keep-recent` is not valid: "),
        "{history}"
    );
}

/// A plan in which nothing may be removed is not written where the grant is the reason, and else written as what it is.
#[test]
fn empty_plans() {
    let test = environment();
    test.write("grant.toml", "[grant]\nremove = []\n");
    let denied = test.larder(&format!("{PRUNE} --plan plan.json"));
    assert_eq!(denied.status, 6, "{denied}");
    assert!(denied.stderr.contains("`plan.json` is not written"), "{denied}");
    assert!(!test.directory().join("plan.json").exists(), "{denied}");
    assert!(!denied.to_string().contains("larder apply"), "{denied}");
    let empty =
        test.larder("prune --policy keep-recent.wasm --config keep=1000 --grant grant.toml --plan plan.json");
    assert_eq!(empty.status, 0, "{empty}");
    assert!(empty.stderr.contains("wrote `plan.json`, in which nothing is to be removed"), "{empty}");
    assert_eq!(test.larder("apply plan.json --yes").stdout, "nothing to remove\n");
}

/// A guard that cannot be read is named by its path, and one that is no text by path and line.
#[test]
fn unreadable_guards() {
    let test = environment();
    let path = test.home.path().join("larder.toml");
    std::os::unix::fs::symlink("larder.toml", &path).expect("a link to itself");
    let looping = test.larder("prune --yes");
    assert!(looping.stderr.contains("cannot be opened: `[HOME]/larder.toml`: "), "{looping}");
    fs::remove_file(&path).expect("the link is removed");
    fs::create_dir(&path).expect("a directory");
    let directory = test.larder("prune --yes");
    assert!(directory.stderr.contains("`[HOME]/larder.toml` is not a regular file"), "{directory}");
    fs::remove_dir(&path).expect("the directory is removed");
    for (bytes, problem) in [
        (&b"[guard]\n\xff"[..], "line 2: it is not UTF-8"),
        (b"[guard]\nkeep = 1\nprotect = [\n", "line 3: "),
    ] {
        fs::write(&path, bytes).expect("the guard");
        let refused = test.larder("prune --yes");
        assert_eq!(refused.status, 2, "{refused}");
        assert!(refused.stderr.contains(&format!("`[HOME]/larder.toml`, {problem}")), "{refused}");
    }
}

/// What matches nothing and looks like a repository may be meant for what lies below it.
#[test]
fn organisations_are_not_repositories() {
    let test = environment();
    guard(&test, "[guard]\nprotect = [\"ghcr.io/acme\"]\n");
    let warned = test.larder("prune --dry-run");
    let below = "`ghcr.io/acme` in `protect` of `[guard]` matches no image of this home: it is one repository; \
                 `ghcr.io/acme/**` is what lies below it";
    assert!(warned.stderr.contains(below), "{warned}");
}

/// A plan that was made of a home at another path says so before it is applied: this one may be a copy.
#[test]
fn plans_of_a_copied_home() {
    let test = environment();
    assert_eq!(test.larder("pin docker.io/acme/app00000:v0 -q").status, 0);
    assert_eq!(test.larder(&format!("{PRUNE} --plan plan.json -q")).status, 0);
    let own = test.larder("apply plan.json");
    let copy = TestEnvironment { home: test.home.copy() };
    copy.write("plan.json", test.read("plan.json"));
    let warning = format!("warning: the plan was made for the home at `{}`", test.home.path().display());
    for arguments in ["apply plan.json", "apply plan.json --yes"] {
        let said = copy.larder(arguments);
        assert!(said.stderr.contains(&warning), "{said}");
        assert!(said.stderr.contains("and this one is at `[HOME]`: it was moved, or is a copy"), "{said}");
    }
    assert!(!own.stderr.contains("is a copy"), "{own}");
}

/// A goal that a plan does not reach is said wherever the plan or its report is shown, with what is lacking.
#[test]
fn goals_that_are_not_reached() {
    let test = environment();
    let goal = "--config keep=2 --grant grant.toml --goal 1TiB";
    let lacking = |text: &str| text.contains(" of the goal of 1.0 TiB are lacking");
    for shown in [
        test.larder(&format!("prune --policy keep-recent.wasm {goal} --dry-run")),
        test.larder(&format!("policy explain keep-recent.wasm {goal}")),
        test.larder(&format!("prune --policy keep-recent.wasm {goal} --plan plan.json")),
    ] {
        assert_eq!(shown.status, 0, "{shown}");
        assert!(lacking(&shown.stdout), "{shown}");
    }
    let refused = test.larder("apply plan.json");
    assert!(lacking(&refused.stderr), "{refused}");
    let applied = test.larder("apply plan.json --yes");
    assert!(lacking(&applied.stderr) && lacking(&applied.stdout), "{applied}");
    let nothing = test.larder(&format!("prune --policy keep-recent.wasm {goal} --yes"));
    assert!(nothing.stdout.starts_with("nothing to remove; 1.0 TiB of the goal of 1.0 TiB"), "{nothing}");
    let reached =
        test.larder("prune --policy keep-recent.wasm --config keep=1 --grant grant.toml --goal 1 --yes");
    assert!(reached.status == 0 && !reached.to_string().contains("lacking"), "{reached}");
    let json = test.larder(
        "prune --policy keep-recent.wasm --config keep=1 --grant grant.toml --goal 2 --yes --format json",
    );
    assert_eq!(json.json()["goal_bytes"], 2, "{json}");
}

/// A pattern that matches nothing is a warning with one that does and that was probably meant; one of another syntax, and a
/// size or age in the wrong spelling, is an error with the right one.
#[test]
fn what_was_probably_meant() {
    let test = environment();
    let warned = |pattern: &str| {
        guard(&test, &format!("[guard]\nprotect = [\"{pattern}\"]\n"));
        test.larder("prune --dry-run").stderr
    };
    for (pattern, meant) in [
        ("docker.io/acme/app00003/*", "docker.io/acme/app00003"),
        ("docker.io/acme/app00003:V1", "docker.io/acme/app00003:v1"),
        ("docker.io/*", "docker.io/**"),
        ("https://docker.io/acme/app00003", "docker.io/acme/app00003"),
        ("re:docker.io/acme/app.*:v1", "docker.io/acme/app**:v1"),
        ("^docker.io/acme/app[0-9]+$", "docker.io/acme/app*"),
        ("*v7", "**:*v7"),
    ] {
        let stderr = warned(pattern);
        assert!(stderr.contains(&format!("did you mean `{meant}`")), "{pattern}: {stderr}");
    }
    guard(&test, "");
    for (pattern, meant) in [
        ("acme/app00003:V1", "; did you mean `docker.io/acme/app00003:v1`?"),
        ("docker.io/acme/app00003/*", "; did you mean `docker.io/acme/app00003`?"),
        ("docker.io/nobody/**", ""),
        ("docker.io/acme/app00000:v0 --unused", ""),
    ] {
        let listed = test.larder(&format!("ls {pattern}"));
        assert_eq!(listed.stderr, format!("no image matches{meant}\n"), "{listed}");
    }
    for (line, meant) in [
        ("max-bytes = \"20gib\"", "20GiB"),
        ("max-share = 50", "\"50%\""),
        ("[guard]\nmin-age = \"7 days\"", "7d"),
        ("[limits]\ntime = \"1.5h\"", "1h30m"),
    ] {
        test.write("grant.toml", format!("[grant]\n{line}\n"));
        let refused = test.larder(&format!("{PRUNE} --dry-run"));
        assert_eq!(refused.status, 2, "{refused}");
        assert!(refused.stderr.contains(&format!("did you mean `{meant}`?")), "{line}: {refused}");
    }
    let goal = test.larder("prune --policy keep-recent.wasm --goal 20gb --dry-run");
    assert!(goal.stderr.contains("did you mean `20GB`?"), "{goal}");
}

/// No message has a name that only Rust or this process knows: what was expected is said in words.
#[test]
fn messages_are_in_words() {
    let test = environment();
    for text in [
        "[]",
        "7",
        "{\"version\": 2, \"made_by\": []}",
        "{\"version\": 2, \"made_by\": \"prune\", \"entries\": {}}",
    ] {
        test.write("bad.json", text);
        let refused = test.larder("apply bad.json --yes");
        assert_eq!(refused.status, 2, "{refused}");
        assert!(refused.stderr.contains("expected ") && !refused.stderr.contains("struct"), "{refused}");
    }
    for text in ["grant = 7", "[grant]\nread = 7", "[limits]\nmemory = []"] {
        test.write("grant.toml", text);
        let refused = test.larder(&format!("{PRUNE} --dry-run"));
        assert_eq!(refused.status, 2, "{refused}");
        assert!(
            refused.stderr.contains("`grant.toml`, line ") || refused.stderr.contains("grant.toml, line "),
            "{refused}"
        );
        assert!(!refused.stderr.contains("struct") && !refused.stderr.contains("sequence"), "{refused}");
    }
    let unwritable = test.larder("prune --plan missing/plan.json");
    assert!(unwritable.stderr.contains("could not write `missing/plan.json`"), "{unwritable}");
    assert!(!unwritable.stderr.contains(".tmp"), "{unwritable}");
    fs::write(test.home.path().join("config.json"), "{\"paths\": 7}").expect("the settings");
    let settings = test.larder("ls");
    assert!(
        settings.stderr.contains("expected an object") && !settings.stderr.contains("struct"),
        "{settings}"
    );
}
