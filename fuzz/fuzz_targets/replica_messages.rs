//! See `tallymesh_fuzz::replica_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymesh_fuzz::replica_messages::run(data));
