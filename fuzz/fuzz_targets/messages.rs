//! See `tallymesh_fuzz::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::messages::run(data));
