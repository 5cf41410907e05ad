//! See `tallymesh_fuzz::rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::rows::run(data));
