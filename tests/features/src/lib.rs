//! Nothing: the manifest has what this crate is for.
