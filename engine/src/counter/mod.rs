//! Counters: the rows of all actors of a structure, joined, and the aggregates that reads use.

mod actors;
pub(crate) mod admission;
mod ages;
mod audit;
pub(crate) mod below;
mod clear;
mod commit;
mod freshness;
pub(crate) mod gauge_cache;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod listing;
pub(crate) mod marks;
mod observed;
mod owed;
pub(crate) mod persist;
mod resets;
pub(crate) mod runs;
pub(crate) mod series;
mod staging;
pub(crate) mod structure;
mod sums;
pub(crate) mod sync;
mod views;
pub(crate) mod watch;
