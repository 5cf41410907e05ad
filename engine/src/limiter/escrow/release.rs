//! What escrow asks of the throttles and pools of this node before a share leaves it.

use crate::canary::{self, Canary};

/// Releases idle units of a limit. Called before a share leaves: released units are no longer used on this node.
pub trait Release {
    /// Permanently stops using up to `units` of a limit. Returns how many.
    fn release(&mut self, name: &str, units: u64) -> u64;

    /// Units that are in use and cannot be released.
    fn in_use(&self, name: &str) -> u64;
}

/// For limits whose share can be given away at any time: rates.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseAll;

impl Release for ReleaseAll {
    fn release(&mut self, _: &str, units: u64) -> u64 {
        units
    }

    fn in_use(&self, _: &str) -> u64 {
        0
    }
}

/// I9: a lender stops using what it lends before the borrower learns of the loan.
pub(super) fn lender_stops_first() -> bool {
    !canary::broken(Canary::TakenBeforeGiven)
}
