//! The lender's side of a loan lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::time::Time;

/// What is lent under one name in one loan lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lent {
    pub(super) lent: u64,
    pub(super) returned: u64,
}

/// A loan lease with a borrower, on the lender's side. While the lender answers the borrower's heartbeats in it, the borrower may
/// use its loans.
#[derive(Clone, Debug)]
pub(super) struct LoanLease {
    pub(super) id: u64,
    pub(super) began: Time,
    /// The last reading of the borrower's clock that this process has answered.
    pub(super) acked: u64,
    /// When it answered.
    pub(super) at: Time,
    /// The loan lease is no longer answered: its loans are returned or expire.
    pub(super) ending: bool,
    /// When the lender last lent something in it.
    pub(super) used: Time,
    pub(super) loans: BTreeMap<Arc<str>, Lent>,
}

impl LoanLease {
    /// The amount of a limit that is still lent.
    pub(super) fn left(&self, name: &str) -> u64 {
        self.loans.get(name).map_or(0, |loan| loan.lent.saturating_sub(loan.returned))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.loans.values().all(|loan| loan.lent <= loan.returned)
    }
}
