//! Checkers for what must hold at every moment, and for what must hold after all faults are healed. They are plain functions,
//! for use in any test.

mod caches;
mod converged;
mod histories;
mod keepers;
mod limits;
mod noted;
mod open;
pub(crate) mod process;
pub(crate) mod rows;
pub(crate) mod seen;
mod settle;
mod windows;

pub use converged::pending;
pub use process::process;
pub use settle::{always, settle, settle_time};
