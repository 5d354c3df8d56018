//! The kit of policy authors: a directory to start from and a way to build it, in every language.
//!
//! - [`scaffold`] writes a directory that builds and passes its scenarios at once.
//! - [`Project`] is such a directory, known by its `policy.toml`: [`Project::build`] makes a component of it, and
//!   [`Project::update`] brings the copies of contract and SDK in it up to date.
//! - [`guide`] says how each language is built without WASI.
//! - [`Tools`] is where compilers and packages are installed that a language needs and that the machine lacks.
//!
//! How each language is built stands in one module for each language, and nowhere else. Whatever the language, the
//! last step is the same: the component is looked at, and refused if it imports anything but `larder:image`, or
//! exports no policy. The crate knows neither the host nor its engine, and prints nothing: long work is told to a
//! function that the caller gives.
//!
//! # On disk
//!
//! ```text
//! TOOLS/componentize-py-0.25.1/   a tool of one version, whole or not there: made beside it and renamed
//! TOOLS/componentize-py-0.25.1.lock
//! PROJECT/policy.toml             name and language
//! PROJECT/wit/                    the contract; where it is missing, the kit's own
//! PROJECT/build/                  bindings and whatever else lies between source and component; can be deleted
//! PROJECT/NAME.wasm               the component; replaced whole
//! ```
//!
//! Two builds of one project at the same time give one of the two results: what they share is written whole, and the
//! rest lies in directories of their own.

mod bindings;
mod build;
mod command;
mod component;
mod error;
mod files;
mod language;
mod name;
mod project;
mod scaffold;
mod tools;

pub use build::{DEBIAN_RUST_PACKAGES, check_rust_compiler, prepare};
pub use error::KitError;
pub use language::{Language, guide};
pub use name::PolicyName;
pub use project::{Built, Project};
pub use scaffold::scaffold;
pub use tools::Tools;
