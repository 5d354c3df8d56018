//! Does nothing: the manifest has what this crate is for.
fn main() {}
