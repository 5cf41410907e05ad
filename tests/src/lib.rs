//! Whole Tallymesh clusters in virtual time: faults, ground truth and checkers.
//!
//! A [`Cluster`] runs the production engine on simulated nodes with their own clocks, on a network that loses, doubles, delays
//! and cuts messages on request. One seed determines everything: the same seed gives the same run, to the last byte.
//!
//! ```
//! use std::time::Duration;
//! use tallymesh_harness::Builder;
//!
//! let mut cluster = Builder::new(7).nodes(["a", "b", "c"]).start();
//! let key = tallymesh_harness::address(1);
//! cluster.run_for(Duration::from_secs(1))?;
//! cluster.script("at 0s cut a from rest; at 5s heal")?;
//! cluster.run_for(Duration::from_secs(1))?;
//! cluster.with("a", |node| node.add("inbound_cidr", &key, 3));
//! cluster.run_for(Duration::from_secs(1))?;
//! assert_eq!(cluster.count("b", "inbound_cidr", &key), 0, "a is cut off");
//! cluster.run_for(Duration::from_secs(3))?;
//! cluster.settle()?;
//! assert_eq!(cluster.count("b", "inbound_cidr", &key), 3);
//! assert!(cluster.trace().marked("cut") > 0, "the fault bit");
//! # Ok::<(), tallymesh_harness::Failure>(())
//! ```
//!
//! [`Builder::service`] adds services to the nodes. [`fault`](fault::Fault) is the language of faults, [`check`] has the
//! checkers, and [`swarm`] draws runs from seeds.
#![deny(missing_docs)]

pub mod admissions;
pub mod caches;
pub mod check;
pub mod clock;
pub mod cluster;
mod disk;
pub mod fault;
mod gauges;
mod hold;
mod inspect;
pub mod limits;
pub mod network;
pub mod node;
mod panics;
pub mod random;
pub mod service;
pub mod swarm;
pub mod trace;
pub mod truth;

pub use admissions::{Admissions, SimPermit, Tally};
pub use cluster::{Builder, Cluster, Failure, NoService, Sent, Timing, quick_config, series, spec};
pub use fault::{Fault, Lie, Step};
pub use hold::SimHold;
pub use inspect::Inspector;
pub use limits::Limits;
pub use network::Conditions;
pub use random::Random;
pub use service::{Context, Service};
// The types in the signatures of this crate, so that a test needs no other dependency.
pub use tallymesh_engine::limiter::{Decision, Founding, LimitError, Limiter, Throttle};
pub use tallymesh_engine::{
    Cache, CacheError, CacheValue, Config, Count, HoldError, Now, Replica, Scope, Series, Stamp, Structure, Time,
};
pub use tallymesh_schemas::{
    Class, GaugeCacheSpec, Kind, MaskLimit, NodeName, OnPartition, Rate, SeriesSpec, Strength, StructureName,
    StructureSpec, ThrottleSpec, UnixMs, Window,
};
pub use trace::Trace;
pub use truth::Truth;
/// The crate of the engine.
pub use {tallymesh_engine as engine, tallymesh_schemas as schemas};

/// The key of the `n`th address of 10.0.0.0/8.
pub fn address(n: u32) -> Vec<u8> {
    let [_, b, c, d] = n.to_be_bytes();
    vec![4, 10, b, c, d, 32]
}
