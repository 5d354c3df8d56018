//! Lists the files that the kit carries along: scaffolds, the contract, the SDK, and what Go builds on. What is somewhere
//! else in this repository is linked from here, so that the package of the crate has it.
//!
//! A list that is made when the kit is built is complete: a macro that embeds a directory does not see a file that was
//! added to it. The module that Go's modules are put on is assembled here too, so that the program carries no assembler.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The constant's name, and the directory relative to this one.
const TREES: [(&str, &str); 9] = [
    ("CONTRACT", "shared/wit"),
    ("SDK_SOURCES", "shared/sdk"),
    ("GO_SUPPORT", "support/go"),
    ("COMMON", "scaffolds/common"),
    ("RUST", "scaffolds/rust"),
    ("C", "scaffolds/c"),
    ("JAVASCRIPT", "scaffolds/javascript"),
    ("PYTHON", "scaffolds/python"),
    ("GO", "scaffolds/go"),
];

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let mut code = String::new();
    for (constant, directory) in TREES {
        let directory = here.join(directory);
        println!("cargo::rerun-if-changed={}", directory.display());
        let mut files = Vec::new();
        collect(&directory, &directory, &mut files)?;
        files.sort();
        write!(code, "pub(crate) const {constant}: &[File] = &[").expect("a string");
        for (name, path) in files {
            write!(code, "File {{ path: {name:?}, text: include_str!({path:?}) }},").expect("a string");
        }
        code.push_str("];\n");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    fs::write(out.join("files.rs"), code)?;
    let adapter = here.join("support/wasi.wat");
    println!("cargo::rerun-if-changed={}", adapter.display());
    fs::write(out.join("wasi.wasm"), wat::parse_file(adapter).map_err(io::Error::other)?)
}

/// Every file below a directory: its path there, with slashes, and where it is.
fn collect(top: &Path, directory: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(top, &path, files)?;
        } else {
            let below = path.strip_prefix(top).expect("it is below");
            files.push((below.to_str().expect("Unicode").replace('\\', "/"), path));
        }
    }
    Ok(())
}
