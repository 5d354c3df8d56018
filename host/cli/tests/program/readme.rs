//! The commands of the README do what it says.
//!
//! Blocks of Rust are compiled as examples of the documentation. Here, each line of a block of shell is run, in order, on a
//! home of its own, or is known to be run elsewhere.

use larder::reference::Digest;
use larder_tests::archive::{Packing, TestImage, docker_files, tar_of};
use larder_tests::registry::TestRegistry;
use larder_tests::{find_component, has_all_languages, target};

use crate::harness::TestEnvironment;

const README: &str = include_str!("../../../../README.md");

/// The lines of all blocks of shell, without what is said about them.
fn commands() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1).filter_map(|block| block.split("\n```").next());
    blocks.flat_map(str::lines).filter_map(|line| line.split(" # ").next()).map(str::trim).collect()
}

/// Every command of the README is one that its tests know, and each that works on a home succeeds on one.
#[test]
fn commands_of_the_readme() {
    let test = TestEnvironment::fixture();
    let registry = TestRegistry::new(&[TestImage::small(&["library/python:3.12"])], Packing::Gzip);
    test.write("app.tar", tar_of(&docker_files(&[TestImage::small(&["acme/app:1"])])));
    std::fs::write(test.home.path().join("larder.toml"), job_file()).expect("the job file");
    let commands = commands();
    assert!(commands.len() > 15, "{commands:#?}");
    for command in commands {
        for part in command.split(" && ") {
            run(part, &test, &registry);
        }
    }
}

/// The job file of the README, with the policies of this build, and bounds that every disk meets.
fn job_file() -> String {
    let file =
        README.split("```toml\n").nth(1).and_then(|block| block.split("\n```").next()).expect("a job file");
    let file = ["keep-recent", "max-age", "disk-budget"].into_iter().fold(file.to_owned(), |file, name| {
        let path = find_component(name).expect("the policy is built");
        let digest = Digest::of(&std::fs::read(&path).expect("the policy"));
        file.replace(&format!("\"{name}\""), &format!("\"{}@{digest}\"", path.display()))
    });
    file.replace("\"15%\"", "\"0.0001%\"").replace("\"25%\"\nstep", "\"0.0002%\"\nstep")
}

fn run(command: &str, test: &TestEnvironment, registry: &TestRegistry) {
    let Some(arguments) = command.strip_prefix("larder ") else {
        assert!(is_run_elsewhere(command), "no test runs `{command}`");
        return;
    };
    if arguments.starts_with("job start") {
        // It runs until it is asked to end: the tests of the service ask it to.
        return;
    }
    if arguments.starts_with("policy new")
        || arguments == "policy test"
        || arguments.starts_with("policy build")
        || arguments.contains("forgotten")
    {
        // As one block, below.
        return;
    }
    let policy = find_component("keep-recent").expect("the policy is built");
    let pulled = registry.reference("library/python:3.12");
    let arguments = arguments
        .replace("python:3.12", &format!("{pulled} --plain-http"))
        .replace("--policy keep-recent", &format!("--policy {}", policy.display()))
        .replace("explain keep-recent", &format!("explain {}", policy.display()));
    let (arguments, file) = match arguments.split_once(" > ") {
        Some((arguments, file)) => (arguments.to_owned(), Some(file)),
        None => (arguments.replace('~', "."), None),
    };
    let output = test.larder(&arguments);
    // The home of microsandbox has files of another's making that `verify` reports.
    let expected = i32::from(arguments.starts_with("verify"));
    assert_eq!(output.status, expected, "{output}");
    if let Some(file) = file.filter(|file| !file.contains('/')) {
        test.write(file, &output.stdout);
    }
}

/// Tells whether CI runs a command as a step of its own.
fn is_run_elsewhere(command: &str) -> bool {
    let tasks = include_str!("../../../../xtask/src/main.rs");
    let is_task = |name: &str| tasks.contains(&format!("Task::{}{} ", name[..1].to_uppercase(), &name[1..]));
    match command.strip_prefix("cargo xtask ") {
        Some(task) => is_task(task),
        None => {
            command == "LARDER_BUILTIN_POLICIES=$PWD/target/builtin cargo install --path host/cli"
                || command == "cd forgotten"
                || command.starts_with("mkdir -p ")
        }
    }
}

/// A new policy in the README's language is built, passes its scenarios, and is explained on a home.
#[test]
fn a_new_policy_as_the_readme_makes_it() {
    if !has_all_languages() || find_component("keep-recent-python").is_none() {
        return;
    }
    let test = TestEnvironment::fixture();
    let block = README.split("larder policy new").nth(1).and_then(|block| block.split("\n```").next());
    let block = format!("policy new{}", block.expect("the README makes a policy"));
    let steps: Vec<&str> =
        block.split(" && ").flat_map(str::lines).map(|step| step.trim_start_matches("larder ")).collect();
    assert_eq!(steps.len(), 6, "{steps:?}");
    for step in steps.into_iter().filter(|step| !step.starts_with("cd ")) {
        let directory = test.directory();
        let inside = directory.join("forgotten");
        let mut command = test.command(step);
        command.current_dir(if inside.exists() { &inside } else { &directory });
        command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .env("LARDER_TOOLS", target().join("tools"))
            .env("LARDER_CODE_CACHE", target().join("tests-code"));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
