//! See `tallymesh_fuzz::delta_model`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::delta_model::run(data));
