//! The common parts of the whole-system tests: homes to work on, and policies to run on them.

mod build;
mod component;
pub mod contest;
pub mod docker_registry;
mod guest;
mod home;
pub mod judge;
mod large;
mod load_test;
mod peer;
mod podman;
pub mod real;
pub mod registry;
mod running;
pub mod seeds;
mod terminal;
mod timing;
mod umoci;
mod usage;

pub use build::{ImageSpec, Users, images_on_one_base, layer_digest, manifest_digest, populate};
pub use component::{component, find_component, has_all_languages, target};
pub use guest::{ENGINE, guest, hostile_guest, hostile_guests};
pub use home::{FIXTURE_NOW, Home, fixtures, index_of, lines_of, run};
pub use larder_images as archive;
pub use large::LargeImage;
pub use load_test::{LoadTest, Outcomes, Seen, contents, entries, tree};
pub use peer::{Peer, PeerReport};
pub use podman::ImageStore;
pub use running::Running;
pub use terminal::Terminal;
pub use timing::{median, median_of, middle};
pub use umoci::umoci_layout;
pub use usage::Usage;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
