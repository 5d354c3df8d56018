//! See [`larder_fuzz::checks::archive`].

#![no_main]

use larder_fuzz::{checks, mutate};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|bytes: &[u8]| {
    checks::archive::check(bytes);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::tar(data, size, max_size, seed)
});
