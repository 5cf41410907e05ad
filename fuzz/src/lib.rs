//! What the fuzz targets do, one module a target.
//!
//! Each has `run`, which takes arbitrary bytes and panics when something is wrong. The targets in `fuzz_targets/` feed it
//! from libFuzzer; the ordinary test run replays the inputs in `corpus/` through it. docs/fuzzing.md says how to fuzz.
#![deny(missing_docs)]

pub mod admin;
pub mod configuration;
pub mod delta_model;
pub mod frames;
pub mod keys;
pub mod messages;
pub mod replica_messages;
pub mod rows;

/// A target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("admin", admin::run),
    ("configuration", configuration::run),
    ("delta_model", delta_model::run),
    ("frames", frames::run),
    ("keys", keys::run),
    ("messages", messages::run),
    ("replica_messages", replica_messages::run),
    ("rows", rows::run),
];
