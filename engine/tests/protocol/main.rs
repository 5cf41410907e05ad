//! Message by message: what the simulator found, and what was found by thinking, in the smallest form that shows it.

mod links;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../pieces/mod.rs"]
mod pieces;
mod runs;
mod transfers;
#[allow(dead_code)]
#[path = "../wire/mod.rs"]
mod wire;
