//! Benches against the peers that Tallymesh is compared with.
//!
//! Each file measures one thing, ours and the peers' in turn within one run, because figures from different runs differ
//! by more than what they are to show. `compare` prints all of it as one table; the targets in `benches/` measure the
//! same things one at a time; `memory` is the memory part alone; `growth`
//! measures how cost grows with keys and actors; `instructions` counts instructions and compares them with a baseline.

pub mod add;
pub mod apply;
pub mod cache;
pub mod counters;
pub mod counting;
pub mod growth;
pub mod input;
pub mod measure;
pub mod memory;
pub mod prefix;
pub mod redis;
pub mod replicas;
pub mod report;
pub mod series;
pub mod take;
pub mod wire;
