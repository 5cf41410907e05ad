//! Computes the fair share of each node: max-min fairness over the known demands (Bertsekas and Gallager, "Data Networks",
//! 6.5.2), and the loans that lead to it.
//!
//! Every node computes this locally from its own knowledge. Correctness does not depend on equal results: a share moves only
//! because its owner lends it or its borrower returns it, whatever other nodes compute as fair.
#![allow(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "indices run over one list of parties")]

/// One node, as the computation of targets sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Party {
    /// The units that it owns.
    pub(crate) held: u64,
    /// The units that it could use.
    pub(crate) demand: u64,
}

/// The size of a limit in units, and the smallest useful share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// All units of the limit.
    pub whole: u64,
    /// The share that holds one whole token. Smaller shares are of no use.
    pub least: u64,
}

/// The target of each party, out of the units that the parties hold. `round` grows as the limit is used: if the shares would be
/// smaller than one token, whole tokens rotate among the parties with it.
pub(crate) fn fair(parties: &[Party], quota: Quota, round: u64) -> Vec<u64> {
    let there: u64 = parties.iter().map(|party| party.held).sum();
    let mut target = vec![0; parties.len()];
    let mut open: Vec<usize> = (0..parties.len()).filter(|i| parties[*i].demand > 0).collect();
    let mut left = there;
    if open.is_empty() || there == 0 {
        return target;
    }
    let slots = usize::try_from(there / quota.least.max(1)).unwrap_or(usize::MAX).max(1);
    if slots < open.len() {
        // A turn lasts for as many admissions as there are slots, so that the tokens that fill a slot are used.
        let first = (round / slots as u64) as usize % open.len();
        for (n, turn) in (0..slots).map(|n| open[(first + n) % open.len()]).enumerate() {
            target[turn] = left / (slots - n) as u64;
            left -= target[turn];
        }
        return target;
    }
    // Smallest demand first: a party that wants less than an equal part leaves the rest to the others.
    open.sort_by_key(|i| (parties[*i].demand, *i));
    let count = open.len();
    for (n, i) in open.into_iter().enumerate() {
        // A party with any demand gets at least what one token needs.
        let equal = left / (count - n) as u64;
        target[i] = parties[i].demand.max(quota.least).min(equal);
        left -= target[i];
    }
    target
}

/// The loans that lead to the targets: every lender lends what it owns beyond its own target, all in the same proportion.
#[derive(Debug)]
pub(crate) struct Loans {
    /// What the parties before each party, and all of them at the end, own beyond their targets.
    surplus: Vec<u64>,
    /// What they lack.
    lack: Vec<u64>,
}

impl Loans {
    pub(crate) fn new(parties: &[Party], target: &[u64]) -> Self {
        let sums = |f: &dyn Fn(usize) -> u64| {
            let mut sums = vec![0; parties.len() + 1];
            for i in 0..parties.len() {
                sums[i + 1] = sums[i] + f(i);
            }
            sums
        };
        Self {
            surplus: sums(&|i| parties[i].held.saturating_sub(target[i])),
            lack: sums(&|i| target[i].saturating_sub(parties[i].held)),
        }
    }

    /// The amount that `lender` should lend `borrower`. O(1).
    pub(crate) fn between(&self, lender: usize, borrower: usize) -> u64 {
        let (all_surplus, all_lack) = (self.surplus[self.surplus.len() - 1], self.lack[self.lack.len() - 1]);
        let surplus = self.surplus[lender + 1] - self.surplus[lender];
        let lack = self.lack[borrower + 1] - self.lack[borrower];
        if lack == 0 || all_surplus == 0 {
            return 0;
        }
        // Rounded so that the parts of all lenders add up to the whole shortage. A lender's parts may exceed its surplus by one
        // unit per borrower; it lends no more than it has.
        let part = |upto: u64, n: u64, of: u64| (u128::from(upto) * u128::from(n) / u128::from(of.max(1))) as u64;
        let of = all_surplus.max(all_lack);
        if all_lack <= all_surplus {
            part(self.surplus[lender + 1], lack, of) - part(self.surplus[lender], lack, of)
        } else {
            part(self.lack[borrower + 1], surplus, of) - part(self.lack[borrower], surplus, of)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parties() -> impl Strategy<Value = Vec<Party>> {
        let party = (0..1000_u64, prop_oneof![Just(0), 0..2000_u64]).prop_map(|(held, demand)| Party { held, demand });
        prop::collection::vec(party, 1..12)
    }

    proptest! {
        #[test]
        fn no_more_is_shared_out_than_there_is(parties in parties(), least in 1..500_u64, round: u64) {
            let there: u64 = parties.iter().map(|party| party.held).sum();
            let target = fair(&parties, Quota { whole: there, least }, round);
            prop_assert!(target.iter().sum::<u64>() <= there);
            // No party below its demand gets less than a party that gets more than it wants.
            if there / least >= parties.len() as u64 {
                for i in 0..parties.len() {
                    for j in 0..parties.len() {
                        let short = target[i] < parties[i].demand;
                        let rich = target[j] > parties[j].demand.max(least);
                        prop_assert!(!short || !rich);
                        prop_assert!(!short || parties[j].demand < parties[i].demand || target[j] + parties.len() as u64 >= target[i] || target[j] >= parties[j].demand);
                    }
                }
            }
        }

        #[test]
        fn loans_make_up_what_is_lacking(parties in parties(), least in 1..500_u64, round: u64) {
            let there: u64 = parties.iter().map(|party| party.held).sum();
            let target = fair(&parties, Quota { whole: there, least }, round);
            let n = parties.len();
            let loans = Loans::new(&parties, &target);
            for lender in 0..n {
                let lent: u64 = (0..n).map(|borrower| loans.between(lender, borrower)).sum();
                let surplus = parties[lender].held.saturating_sub(target[lender]);
                prop_assert!(lent <= surplus + n as u64 && (surplus > 0 || lent == 0), "rounding is a unit a borrower");
            }
            for borrower in 0..n {
                let lack = target[borrower].saturating_sub(parties[borrower].held);
                let got: u64 = (0..n).map(|lender| loans.between(lender, borrower)).sum();
                prop_assert_eq!(got, lack, "targets never sum up to more than there is");
            }
        }
    }

    #[test]
    fn one_who_wants_everything_gets_what_the_others_leave() {
        let mut parties = vec![Party { held: 100, demand: 0 }; 10];
        parties[3].demand = 1000;
        parties[4].demand = 20;
        let target = fair(&parties, Quota { whole: 1000, least: 1 }, 0);
        assert_eq!((target[3], target[4]), (980, 20));
        assert_eq!(Loans::new(&parties, &target).between(4, 3), 80);
    }

    #[test]
    fn whole_tokens_go_round() {
        let parties = vec![Party { held: 100, demand: 1000 }; 10];
        let quota = Quota { whole: 1000, least: 500 };
        let turns: Vec<Vec<usize>> = (0..6)
            .map(|round| {
                let target = fair(&parties, quota, round);
                (0..10).filter(|i| target[*i] > 0).collect()
            })
            .collect();
        assert_eq!(turns, [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3]]);
    }
}
