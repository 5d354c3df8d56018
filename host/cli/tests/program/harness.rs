//! What the program's tests share: a home of its own for each test, and the program run on it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder_tests::{FIXTURE_NOW, Home};

/// A directory with a home in it, in which the program runs as if it were [`FIXTURE_NOW`].
pub(crate) struct TestEnvironment {
    pub(crate) home: Home,
}

/// Everything that the program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    arguments: String,
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnvironment {
    /// With a copy of the home that microsandbox made.
    pub(crate) fn fixture() -> Self {
        Self { home: Home::fixture() }
    }

    /// With an empty home that Larder made.
    pub(crate) fn made() -> Self {
        Self { home: Home::made() }
    }

    /// With no home at all.
    pub(crate) fn missing() -> Self {
        Self { home: Home::missing() }
    }

    /// The directory that the home lies in, and the program runs in.
    pub(crate) fn directory(&self) -> PathBuf {
        self.home.path().parent().expect("a directory above the home").to_owned()
    }

    /// Writes a file beside the home.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.directory().join(name), content).expect("the file");
    }

    /// Reads a file beside the home.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).expect("the file")
    }

    /// Reads a file beside the home as what the program says is read: without what differs from run to run.
    pub(crate) fn read_as_said(&self, name: &str) -> String {
        text(fs::read(self.directory().join(name)).expect("the file"), &self.directory())
    }

    /// Puts a policy beside the home, and returns what a job file names it by.
    pub(crate) fn job_policy(&self, name: &str) -> String {
        let file = self.policy(name);
        let bytes = fs::read(self.directory().join(&file)).expect("the policy");
        format!("./{file}@{}", larder::reference::Digest::of(&bytes))
    }

    /// Puts a policy beside the home.
    pub(crate) fn policy(&self, name: &str) -> String {
        let file = format!("{name}.wasm");
        fs::copy(larder_tests::component(name), self.directory().join(&file)).expect("the policy");
        file
    }

    /// The program with these arguments, in an environment that has nothing of this process's.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        self.command_at(FIXTURE_NOW, arguments)
    }

    /// The same at another time.
    pub(crate) fn command_at(&self, now: &str, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command
            .env_clear()
            .env("MSB_HOME", self.home.path())
            .args(["--now", now])
            .args(arguments.split_whitespace())
            .current_dir(self.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program.
    pub(crate) fn larder(&self, arguments: &str) -> Output {
        self.larder_at(FIXTURE_NOW, arguments)
    }

    /// Runs the program at another time.
    pub(crate) fn larder_at(&self, now: &str, arguments: &str) -> Output {
        let output = self.command_at(now, arguments).output().expect("the program started");
        let directory = self.directory();
        Output {
            arguments: arguments.to_owned(),
            status: output.status.code().expect("the program ended by itself"),
            stdout: text(output.stdout, &directory),
            stderr: text(output.stderr, &directory),
        }
    }
}

/// What was said, without what differs from run to run.
fn text(bytes: Vec<u8>, directory: &Path) -> String {
    let text = String::from_utf8(bytes).expect("text");
    text.replace(&directory.join("home").display().to_string(), "[HOME]")
        .replace(&directory.display().to_string(), "[DIR]")
}

impl Output {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"))
    }

    /// What was told of long work, which is all of standard error, without how far layers were: that has grown from
    /// event to event, to the end of each layer.
    pub(crate) fn milestones(&self) -> Vec<serde_json::Value> {
        let mut far: HashMap<String, u64> = HashMap::new();
        let mut milestones = Vec::new();
        for line in self.stderr.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("an object");
            let event = line["progress"].clone();
            let layer = event["layer"].as_str().unwrap_or_default().to_owned();
            let bytes = event["bytes"].as_u64();
            if event["event"] == "layer-advanced" {
                let done = event["done"].as_u64();
                assert!(far.insert(layer, done.expect("a number")) < done && done <= bytes, "{self}");
                continue;
            }
            if event["event"] == "layer-done" && event["outcome"] != "cached" {
                assert_eq!(far.remove(&layer), bytes, "{self}");
            }
            milestones.push(event);
        }
        assert!(far.is_empty(), "{self}");
        milestones
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ larder {}", self.arguments)?;
        writeln!(f, "exit status: {}", self.status)?;
        write!(f, "----- stdout -----\n{}----- stderr -----\n{}", self.stdout, self.stderr)
    }
}

/// Compares outputs with the snapshot of this name.
macro_rules! assert_output {
    ($name:literal, $($output:expr),+ $(,)?) => {
        // What files take depends on the file system, what a run takes on the machine; columns are as wide as they.
        insta::with_settings!({ omit_expression => true, filters => [
            (r"\b\d+(\.\d)? ([KMGT]i)?B\b", "[SIZE]"),
            (r#""(bytes|bytes_reclaimed|\w+_bytes)": [1-9]\d*"#, r#""$1": [BYTES]"#),
            (r#""duration_ms": \d+"#, r#""duration_ms": [MS]"#),
            (r#""hash": "sha256:[0-9a-f]{64}""#, r#""hash": "[HASH]""#),
            (r"hash     sha256:[0-9a-f]{64}", "hash     [HASH]"),
            (r"sha256   [0-9a-f]{64}", "sha256   [HASH]"),
            (r"\b\d+\.\d{3} ms|\b\d+\.\d s\b", "[TIME]"),
            (r"(?m)^ +(\S)", "  $1"),
            (r"(\S)  +", "$1  "),
        ] }, {
            insta::assert_snapshot!($name, [$($output.to_string()),+].join("\n"));
        })
    };
}
