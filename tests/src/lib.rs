//! What the whole-system tests share: homes to work on.

mod build;
mod component;
mod home;

pub use build::{ImageSpec, Users, layer_digest, manifest_digest, populate};
pub use component::component;
pub use home::{FIXTURE_NOW, Home, fixtures, lines_of, run};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
