//! Images come out of a cache as archives that hold what they held.

mod archives;
mod read;
mod refusals;
