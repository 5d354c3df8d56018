//! Images in and out of a cache.

mod save;
