//! What the verification in the background has found.

use tallymesh_engine::Now;
use tallymesh_engine::replica::Outcome;

/// What the verification in the background has found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Convergence {
    /// When all members last held what every owner had.
    pub(crate) converged: Option<Now>,
    /// The last verification that has ended.
    pub(crate) ended: Option<Ended>,
}

/// A verification that has ended.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "the admin socket shows it"))]
pub(crate) struct Ended {
    pub(crate) at: Now,
    pub(crate) outcome: Outcome,
    /// How many copies differed, lagged, or could not be compared.
    pub(crate) findings: usize,
}
