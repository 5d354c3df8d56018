//! See [`larder_fuzz::checks::challenge`].

#![no_main]

use larder_fuzz::checks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::challenge::check(bytes);
});
