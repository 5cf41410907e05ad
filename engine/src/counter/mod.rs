//! Counters: the rows of all actors of a structure, joined, and the aggregates that reads use.

pub(crate) mod admission;
mod ages;
mod audit;
pub(crate) mod below;
mod clear;
mod freshness;
pub(crate) mod gauge_cache;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod journal;
mod keep;
pub(crate) mod ledger;
pub(crate) mod listing;
pub(crate) mod marks;
mod owed;
mod resets;
mod runs;
pub(crate) mod series;
mod staging;
pub(crate) mod structure;
pub(crate) mod sync;
pub(crate) mod watch;
pub(crate) mod writes;
