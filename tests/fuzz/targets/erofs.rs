//! See [`larder_fuzz::checks::erofs`].

#![no_main]

use larder_fuzz::{checks, mutate};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|bytes: &[u8]| {
    checks::erofs::check(bytes);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::erofs(data, size, max_size, seed)
});
