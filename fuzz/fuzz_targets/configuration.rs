//! See `tallymesh_fuzz::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::configuration::run(data));
