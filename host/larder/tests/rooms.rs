//! The rooms of the library: each uses only those above it.
//!
//! `cargo test -p larder --test rooms -- --nocapture` prints which room uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up. A room uses only those that stand before it.
const ROOMS: [&str; 19] = [
    "failpoint",
    "reference",
    "pattern",
    "units",
    "records",
    "error",
    "home",
    "artifacts",
    "catalog",
    "snapshot",
    "store",
    "backend",
    "plan",
    "registry",
    "ingest",
    "maintenance",
    "image",
    "policy",
    "job",
];

/// The rooms of `policy`, likewise.
const POLICY_ROOMS: [&str; 6] = ["error", "limits", "grant", "session", "engine", "suggest"];

/// What may use a room below it, and why.
const EXCEPTIONS: [(&str, &str, &str); 5] = [
    ("error", "home", "one enum has the errors of all rooms"),
    ("error", "ingest", "one enum has the errors of all rooms"),
    ("error", "plan", "one enum has the errors of all rooms, and what was done before one"),
    ("error", "policy", "one enum has the errors of all rooms"),
    (
        "plan",
        "policy",
        "a plan has the grant that its policy ran with, as the document that grants are written in",
    ),
];

/// Every source file below a directory, but for those that are tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the directory is read") {
        let path = entry.expect("the entry is read").path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, comments and unit tests aside.
fn code(source: &str) -> String {
    let code = source.split("\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The names that follow a path such as `crate::` in the code of a file.
fn used(source: &str, path: &str) -> BTreeSet<String> {
    let code = code(source);
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(path) {
        let rest = &code[at + path.len()..];
        assert!(!rest.starts_with('{'), "`use {path}{{…}}` names no room: write one `use` for each");
        names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
    }
    names
}

/// No room uses one that stands below it in the list, but for the named exceptions, and each of those is needed.
#[test]
fn a_room_uses_only_rooms_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut uses: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut exceptions = BTreeSet::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("the file lies in the source directory");
        let first = path.iter().next().expect("a path has a first part").to_string_lossy();
        let room = first.trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let place = |name: &str| ROOMS.iter().position(|room| *room == name);
        let Some(user) = place(room) else {
            wrong.push(format!("`{}` lies in no room of the list", path.display()));
            continue;
        };
        for name in used(&fs::read_to_string(&file).expect("the file is read"), "crate::") {
            match place(&name) {
                None => wrong.push(format!("`{}` uses `crate::{name}`, which is no room", path.display())),
                Some(used) if used == user => {}
                Some(used) => {
                    uses.entry(user).or_default().insert(used);
                    let excepted = EXCEPTIONS.iter().position(|&(from, to, _)| from == room && to == name);
                    match excepted {
                        Some(exception) => drop(exceptions.insert(exception)),
                        None if used > user => {
                            wrong.push(format!(
                                "`{}` uses `{name}`, which stands below `{room}`",
                                path.display()
                            ));
                        }
                        None => {}
                    }
                }
            }
        }
    }
    for (user, used) in &uses {
        let names: Vec<&str> = used.iter().map(|&room| ROOMS[room]).collect();
        println!("{:12} uses {}", ROOMS[*user], names.join(", "));
    }
    for (index, (from, to, _)) in EXCEPTIONS.iter().enumerate() {
        if !exceptions.contains(&index) {
            wrong.push(format!("`{from}` does not use `{to}` any more: take the exception away"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of the rooms of `policy`, none uses one that stands below it, and only the engine knows WebAssembly and the contract.
#[test]
fn a_room_of_policy_uses_only_rooms_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("the file lies in the directory of policies");
        let first = path.iter().next().expect("a path has a first part").to_string_lossy();
        let room = first.trim_end_matches(".rs");
        if room == "mod" {
            continue;
        }
        let shown = path.display();
        let place = |name: &str| POLICY_ROOMS.iter().position(|room| *room == name);
        let Some(user) = place(room) else {
            wrong.push(format!("`{shown}` lies in no room of the list"));
            continue;
        };
        let source = fs::read_to_string(&file).expect("the file is read");
        for name in used(&source, "crate::policy::") {
            match place(&name) {
                Some(used) if used > user => {
                    wrong.push(format!("`{shown}` uses `{name}`, which stands below `{room}`"));
                }
                None if name != "WIT_VERSION" => {
                    wrong.push(format!("`{shown}` uses `crate::policy::{name}`, which is no room"));
                }
                _ => {}
            }
        }
        let is_root = path.parent() == Some(Path::new("")) || path.ends_with("mod.rs");
        if is_root && path.iter().count() <= 2 && code(&source).contains("super::") {
            wrong.push(format!("`{shown}` names a room by `super::`: write `crate::policy::`"));
        }
        if room != "engine" && code(&source).contains("wasmtime") {
            wrong.push(format!("`{shown}` knows wasmtime"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
