//! See `tallymesh_fuzz::keys`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::keys::run(data));
