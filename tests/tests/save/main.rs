//! Images come out of a cache as archives that hold what they held.

mod again;
mod archives;
mod judged;
mod read;
mod refusals;
mod streams;
