//! Larder and microsandbox's own SDK on the same homes: what one makes, the other lists, inspects, saves, loads and
//! prunes as if it had made it itself. `cargo xtask peer` builds what these tests need.

mod answers;
mod filled_by_larder;
mod filled_by_microsandbox;
mod fixture;
mod images;
mod pruning;
mod shared;
