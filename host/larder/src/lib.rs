//! Larder: the OCI image cache of microVM sandboxes, with clean-up policies that run in a sandbox of their own.
//!
//! - [`image`]: the image API, [`Image`] and the records it returns, with microsandbox's names and meaning
//! - [`backend`]: which cache that API works on
//! - [`reference`] and [`pattern`]: names of images and of content
//! - [`state`]: one state of the cache as a decision sees it, and what images cost
//! - [`policy`]: policies, what they may do, the plans they make and what became of those

pub mod error;
pub mod pattern;
pub mod policy;
pub mod reference;
pub mod state;
