//! The metrics of a node, as scrapers read them.
//!
//! `definition` defines them. At a scrape, `gather` reads the figures that the node's parts keep anyway, and `figures` writes
//! them as text. So counting gains no work from being measured.

pub(crate) mod definition;
pub(crate) mod figures;
pub(crate) mod gather;
pub(crate) mod histogram;
mod limits;
mod objects;
#[cfg(test)]
mod page;
