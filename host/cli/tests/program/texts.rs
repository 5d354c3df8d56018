//! Texts of archives, names of files and of policies reach a terminal as text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use larder_tests::Terminal;
use larder_tests::archive::{Files, TestImage, blob_name, digest, docker_files, tar_of};
use serde_json::{Value, json};

use crate::harness::TestEnvironment;

/// What sets a title, rings, clears the screen in two ways, goes back, reorders text, and begins a line of its own.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{8}\r\u{202e}\u{2066}\u{7f}\nerror: forged";

/// The bytes of a terminal as text, without the colours of the program's own.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::from_utf8(bytes.to_vec()).expect("text").replace("\r\n", "\n");
    while let Some(begin) = text.find("\u{1b}[") {
        let Some(length) = text[begin + 2..].find(|c: char| !c.is_ascii_digit() && c != ';') else { break };
        let end = begin + 2 + length;
        if !text[end..].starts_with('m') {
            break;
        }
        text.replace_range(begin..=end, "");
    }
    text
}

#[track_caller]
fn check(text: &str, what: &str) {
    let is_harmful = |c: char| {
        c != '\n' && c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.chars().any(is_harmful), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{what}: {text}");
}

/// The documents of an archive with one image.
struct Archive {
    files: Files,
    manifest: Value,
    config: Value,
    index: Value,
}

impl Archive {
    fn new() -> Self {
        let image = TestImage::small(&["acme/app:1"]);
        let files = docker_files(std::slice::from_ref(&image));
        let manifest = serde_json::from_slice(&files["manifest.json"]).expect("a list");
        let config = image.config();
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"{}"), "size": 2,
        }] });
        Self { files, manifest, config, index }
    }

    fn docker(mut self, edit: impl FnOnce(&mut Value)) -> Files {
        edit(&mut self.manifest[0]);
        self.files.insert("manifest.json".to_owned(), self.manifest.to_string().into_bytes());
        self.files
    }

    fn with_config(mut self, edit: impl FnOnce(&mut Value)) -> Files {
        edit(&mut self.config);
        let name = self.manifest[0]["Config"].as_str().expect("a name").to_owned();
        self.files.insert(name, self.config.to_string().into_bytes());
        self.files
    }

    fn layout(mut self, edit: impl FnOnce(&mut Value)) -> Files {
        edit(&mut self.index["manifests"][0]);
        let mut files = Files::new();
        files.insert("index.json".to_owned(), self.index.to_string().into_bytes());
        files
    }

    fn with_manifest(self, manifest: &Value) -> Files {
        let text = manifest.to_string().into_bytes();
        let (name, size) = (digest(&text), text.len());
        let mut files = self.layout(|image| {
            image["digest"] = name.clone().into();
            image["size"] = size.into();
        });
        files.insert(blob_name(&name), text);
        files
    }
}

/// Whatever text of an archive a message has, a terminal shows it as text in that message: no control character, and no
/// line that is not the program's own. Programs get it escaped.
#[test]
fn texts_of_archives_are_texts() {
    let hostile = || Value::from(HOSTILE);
    let path = || Value::from(format!("{HOSTILE}.json"));
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 });
    let cases: Vec<(&str, Files)> = vec![
        ("config", Archive::new().docker(|image| image["Config"] = path())),
        ("layer", Archive::new().docker(|image| image["Layers"] = json!([path(), path()]))),
        ("tag", Archive::new().docker(|image| image["RepoTags"] = json!([hostile()]))),
        ("platform of a config", Archive::new().with_config(|config| config["architecture"] = hostile())),
        ("diff ID", Archive::new().with_config(|config| config["rootfs"]["diff_ids"] = json!([hostile(), hostile()]))),
        ("type of a field", Archive::new().with_config(|config| config["config"] = hostile())),
        ("media type", Archive::new().layout(|image| image["mediaType"] = hostile())),
        ("digest", Archive::new().layout(|image| image["digest"] = hostile())),
        ("platform", Archive::new().layout(|image| image["platform"] = json!({ "os": hostile(), "architecture": "x" }))),
        ("annotation", Archive::new().layout(|image| image["annotations"] = json!({ "io.containerd.image.name": hostile() }))),
        ("media type of a config", Archive::new().with_manifest(&json!({
            "schemaVersion": 2, "config": { "mediaType": hostile(), "digest": digest(b"{}"), "size": 2 }, "layers": [],
        }))),
        ("media type of a layer", Archive::new().with_manifest(&json!({
            "schemaVersion": 2, "config": config, "layers": [{ "mediaType": hostile(), "digest": digest(b"{}"), "size": 2 }],
        }))),
    ];
    let test = TestEnvironment::made();
    for (what, files) in cases {
        test.write("hostile.tar", tar_of(&files));
        let text = shown(&Terminal::start(test.command("load hostile.tar")).written());
        check(&text, what);
        assert!(text.contains("error: `hostile.tar`"), "{what}: {text}");
        let json = test.larder("load hostile.tar --format json");
        check(&json.stderr, what);
        let error: Value =
            serde_json::from_str(&json.stderr).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert!(error["error"].is_string(), "{json}");
    }
}

/// The same of names of files and references that are given, and of files that are written.
#[test]
fn names_are_texts() {
    let test = TestEnvironment::made();
    for arguments in [
        &["load"][..],
        &["inspect"],
        &["rm", "--force"],
        &["save", "acme/app:1", "-o"],
        &["apply"],
        &["prune", "--dry-run", "--policy", "keep-recent", "--grant"],
        &["job", "check", "--file"],
    ] {
        let mut command = test.command("");
        command.args(arguments).arg(format!("./{HOSTILE}"));
        check(&shown(&Terminal::start(command).written()), arguments[0]);
    }
    for argument in [format!("--{HOSTILE}"), format!("--sort={HOSTILE}")] {
        let mut command = test.command("ls");
        command.arg(argument).arg(OsStr::from_bytes(b"--\xff"));
        let text = shown(&Terminal::start(command).written());
        check(&text, "ls");
        assert!(text.starts_with("error: "), "{text}");
    }
}
