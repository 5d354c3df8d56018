//! What a machine is set up for does not matter to the building of policies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use larder_kit::{Language, Project, Tools, scaffold};

/// Settings of Cargo that break every build: in a file above the policy, and in the environment.
const CARGO_CONFIG: &str = r#"
[build]
rustc = "/nonexistent/rustc"
rustc-wrapper = "/nonexistent/wrapper"
rustc-workspace-wrapper = "/nonexistent/wrapper"
rustflags = ["--no-such-flag"]
target = "no-such-target"
target-dir = "/nonexistent/target"
build-dir = "/nonexistent/build"

[target.wasm32-unknown-unknown]
linker = "/nonexistent/linker"
rustflags = ["--no-such-flag"]

[profile.release]
codegen-units = 256
debug = true
incremental = true
lto = false
opt-level = 0
overflow-checks = true
panic = "unwind"
strip = "none"

[profile.policy]
debug-assertions = true
opt-level = 1

[profile.policy.package.larder-guest]
opt-level = 3
"#;
const GO_CONFIG: &str = "GOFLAGS=-mod=vendor\nGOEXPERIMENT=nosuchexperiment\nGOOS=plan9\nGOWORK=off\n";
const VARIABLES: [(&str, &str); 15] = [
    ("CARGO_BUILD_RUSTC_WRAPPER", "/nonexistent/wrapper"),
    ("CARGO_BUILD_RUSTFLAGS", "--no-such-flag"),
    ("CARGO_BUILD_TARGET", "no-such-target"),
    ("CARGO_ENCODED_RUSTFLAGS", "--no-such-flag"),
    ("CARGO_PROFILE_POLICY_OPT_LEVEL", "nonsense"),
    ("CARGO_TARGET_DIR", "/nonexistent/target"),
    ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "/nonexistent/linker"),
    ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "--no-such-flag"),
    ("RUSTC_WORKSPACE_WRAPPER", "/nonexistent/wrapper"),
    ("RUSTC_WRAPPER", "/nonexistent/wrapper"),
    ("RUSTFLAGS", "--no-such-flag"),
    ("GO111MODULE", "off"),
    ("GOEXPERIMENT", "nosuchexperiment"),
    ("GOFLAGS", "-mod=vendor"),
    ("GOROOT", "/nonexistent/go"),
];

/// A new policy is built from a directory inside of it, named by `..`, with the machine's Cargo and Go set up for something
/// else, as in Rust it is built without that, with links and packages beside its sources, and, in Go, for a version that is newer than the oldest one.
#[test]
fn settings_of_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("go.env", GO_CONFIG);
    for language in languages() {
        let place = directory.path().join(language.as_str());
        scaffold(&place, &"demo".parse().unwrap(), language).unwrap();
        let inside = place.join("inside");
        fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("..", place.join("loop")).unwrap();
        for file in ["broken.py", "broken.js", "broken.c", "broken.go"] {
            write(&format!("{language}/node_modules/package/{file}"), "no sources");
        }
        if language == Language::Go {
            write("go/go.mod", "module larder.policy/demo\n\ngo 1.26.1\n");
        }
        let build = |change: &dyn Fn(&mut Command)| {
            let mut build = Command::new(env::current_exe().unwrap());
            build.args(["--exact", "builds_the_directory_above", "--ignored", "--nocapture"]);
            build.current_dir(&inside).env("LARDER_TEST_TARGET", target());
            change(&mut build);
            let output = build.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{language}: {said}{}", String::from_utf8_lossy(&output.stderr));
            assert!(said.contains("1 passed"), "{said}");
            fs::read(place.join("demo.wasm")).unwrap()
        };
        // Cargo's own file for the machine has the same keys as one above a project.
        fs::remove_dir_all(directory.path().join(".cargo")).ok();
        let undisturbed = (language == Language::Rust).then(|| build(&|_| {}));
        write(".cargo/config.toml", CARGO_CONFIG);
        let component = build(&|build| {
            build.envs(VARIABLES).env("GOENV", directory.path().join("go.env"));
        });
        assert!(component.starts_with(b"\0asm"));
        assert!(undisturbed.is_none_or(|undisturbed| undisturbed == component), "another component");
    }
}

/// The part of the test above that runs in an environment of its own.
#[test]
#[ignore = "the test above runs it"]
fn builds_the_directory_above() {
    let target = PathBuf::from(env::var_os("LARDER_TEST_TARGET").unwrap());
    let project = Project::open(Path::new("..")).unwrap();
    let work = target.join("guests/in-the-way").join(project.language().as_str());
    let project = project.in_work_directory(work);
    let tools = Tools::in_directory(target.join("tools"));
    project
        .build(&tools, Path::new("../demo.wasm"), &mut |line| println!("{line}"))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Returns the languages to go through: with `LARDER_LANGUAGES=all` every one, else Rust, which takes seconds.
fn languages() -> Vec<Language> {
    match env::var_os("LARDER_LANGUAGES").is_some_and(|which| which == "all") {
        true => Language::ALL.to_vec(),
        false => vec![Language::Rust],
    }
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |set| root.join(set))
}
