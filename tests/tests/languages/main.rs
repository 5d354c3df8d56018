//! A policy is the same in every language: the five versions of `keep-recent` give the same plan for the same cache,
//! byte for byte but for the policy's own name and hash, and fail with the same words. And what an author starts from
//! builds, loads and decides the same in each language.

mod agreement;
mod authors;
mod configs;
mod decisions;
mod random;
