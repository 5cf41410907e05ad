//! See `tallymesh_fuzz::admin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::admin::run(data));
