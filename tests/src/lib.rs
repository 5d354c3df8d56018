//! What the whole-system tests share: homes to work on, and policies to run on them.

pub mod archive;
mod build;
mod component;
mod guest;
mod home;
pub mod judge;
mod load_test;
pub mod real;
pub mod registry;

pub use build::{ImageSpec, Users, layer_digest, manifest_digest, populate};
pub use component::component;
pub use guest::{ENGINE, guest, hostile_guest, hostile_guests};
pub use home::{FIXTURE_NOW, Home, fixtures, lines_of, run};
pub use load_test::{LoadTest, contents, tree};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
