//! What a member can do with facts that it makes up.

use std::time::Duration;

use tallymesh_schemas::NodeName;

use crate::limiter::escrow::founding::Founding;
use crate::limiter::escrow::release::ReleaseAll;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::fact::{self, Fact, Process};
use crate::limiter::share::UNITS;
use crate::limiter::target::Quota;
use crate::time::Time;

const NAME: &str = "campaign";

fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// The node `borrower`, which is no founder, asks for all of a limit and has nothing of it.
fn borrower() -> Escrow {
    let founding = Founding::new([name("honest"), name("liar")], Duration::from_secs(6)).unwrap();
    let mut escrow = Escrow::new(founding, name("borrower"), 1, Time(1));
    escrow.share_out(NAME, Quota { whole: UNITS, least: 1 }, None);
    escrow.demand(NAME, UNITS, 1);
    escrow.handle_timeout(Time(1_000_000), &mut ReleaseAll);
    assert_eq!(escrow.share(NAME).units, 0);
    escrow
}

/// A loan that `from` makes up: an answer to the borrower's heartbeat, and an amount.
fn forge_loan(escrow: &mut Escrow, from: &str, process: u64, units: u64) {
    let (to, lease, now) = (escrow.process.clone(), 1, escrow.now);
    let ack = Fact::Ack { to: to.clone(), lease };
    let lent = Fact::Lent { to, lease, name: NAME.into() };
    for (fact, total) in [(Fact::Heartbeat, 1), (ack, escrow.heartbeat), (lent, units)] {
        let key = fact::encode(escrow.config_fingerprint, process, &fact);
        escrow.learn(now, &name(from), key.as_bytes(), total, 0);
    }
    escrow.handle_timeout(now, &mut ReleaseAll);
}

/// Each node that believes a founder admits the whole limit at most, until the loan ends.
#[test]
fn a_founder_that_makes_up_shares_gives_a_node_the_whole_limit_at_most() {
    let mut escrow = borrower();
    for process in 1..4 {
        forge_loan(&mut escrow, "liar", process, UNITS);
    }
    let share = escrow.share(NAME);
    assert_eq!(share.units, UNITS, "three loans of the whole limit are one whole limit");
    assert!(share.until < escrow.now.after(escrow.times.lease), "{share:?}");
    escrow.handle_timeout(share.until, &mut ReleaseAll);
    assert_eq!(escrow.share(NAME).units, 0, "a loan ends when the lender answers no heartbeat");
}

/// Loans of a member that is no founder have no effect.
#[test]
fn a_member_that_is_no_founder_cannot_make_up_shares() {
    let mut escrow = borrower();
    forge_loan(&mut escrow, "member", 1, UNITS);
    assert_eq!(escrow.share(NAME).units, 0);
}

/// The facts that a process writes now: the totals by which they grow.
fn facts(escrow: &mut Escrow) -> Vec<(Fact, u64, u64)> {
    let writes = std::iter::from_fn(|| escrow.poll_write());
    writes.map(|write| (fact::decode(write.key.as_bytes()).unwrap().2, write.added, write.removed)).collect()
}

/// A borrower that hears nothing of its lender says that the loan lease is over, once, and never uses it again.
#[test]
fn a_borrower_ends_a_loan_lease_for_good() {
    let mut escrow = borrower();
    forge_loan(&mut escrow, "liar", 1, UNITS);
    let until = escrow.share(NAME).until;
    facts(&mut escrow);
    escrow.handle_timeout(until.after(escrow.times.closing), &mut ReleaseAll);
    let lender = Process { node: name("liar"), nonce: 1 };
    let ended = Fact::Ended { to: lender, lease: 1 };
    assert_eq!(facts(&mut escrow).into_iter().filter(|(fact, ..)| *fact == ended).count(), 1);
    forge_loan(&mut escrow, "liar", 1, UNITS);
    assert_eq!(escrow.share(NAME).units, 0, "a late answer does not revive the loan lease");
    assert!(facts(&mut escrow).iter().all(|(fact, ..)| *fact != ended), "it is said once");
    let lent = Fact::Lent { to: escrow.process.clone(), lease: 1, name: NAME.into() };
    let key = fact::encode(escrow.config_fingerprint, 1, &lent);
    escrow.learn(escrow.now, &name("liar"), key.as_bytes(), UNITS, UNITS);
    assert!(facts(&mut escrow).contains(&(ended, 0, 1)), "the row goes with the lender's");
}

/// A lender has everything back when its borrower says that the loan lease is over.
#[test]
fn a_lender_has_back_what_its_borrower_has_ended() {
    let founding = Founding::new([name("lender")], Duration::from_secs(6)).unwrap();
    let mut lender = Escrow::new(founding.clone(), name("lender"), 1, Time(1));
    let borrower = Process { node: name("borrower"), nonce: 2 };
    lender.share_out(NAME, Quota { whole: UNITS, least: 1 }, None);
    let says = |lender: &mut Escrow, fact: &Fact, total: u64| {
        let key = fact::encode(founding.config_fingerprint(), borrower.nonce, fact);
        lender.learn(lender.now, &borrower.node, key.as_bytes(), total, 0);
    };
    for second in 1..20 {
        lender.handle_timeout(Time(second * 1_000_000), &mut ReleaseAll);
        says(&mut lender, &Fact::Heartbeat, second);
        says(&mut lender, &Fact::Demand { rate: None, name: NAME.into() }, UNITS);
    }
    lender.handle_timeout(Time(20_000_000), &mut ReleaseAll);
    assert_eq!(lender.lent(NAME).values().sum::<u64>(), UNITS);
    let lease = lender.lent[&borrower][0].id;
    let to = lender.process.clone();
    says(&mut lender, &Fact::Ended { to, lease }, 1);
    assert_eq!((lender.lent(NAME).len(), lender.share(NAME).units), (0, UNITS));
}

/// The only founder, with limits, and other nodes that each ask for all of them.
struct Lender {
    escrow: Escrow,
    founding: Founding,
    borrowers: u64,
    now: Time,
}

impl Lender {
    fn new(limits: usize, borrowers: u64) -> Self {
        let founding = Founding::new([name("lender")], Duration::from_secs(6)).unwrap();
        let escrow = Escrow::new(founding.clone(), name("lender"), 1, Time(1));
        let mut lender = Self { escrow, founding, borrowers, now: Time(1) };
        for n in 0..limits {
            lender.escrow.share_out(&format!("campaign {n}"), Quota { whole: UNITS, least: 1 }, None);
        }
        for _ in 0..20 {
            lender.turn(1_000_000);
            lender.says(&|_| Fact::Heartbeat, lender.now.0);
        }
        for n in 0..limits {
            let name: std::sync::Arc<str> = format!("campaign {n}").into();
            lender.says(&|_| Fact::Demand { rate: None, name: name.clone() }, UNITS);
        }
        lender
    }

    fn says(&mut self, fact: &dyn Fn(u64) -> Fact, total: u64) {
        for borrower in 0..self.borrowers {
            let key = fact::encode(self.founding.config_fingerprint(), borrower, &fact(borrower));
            self.escrow.learn(self.now, &name(&format!("borrower-{borrower}")), key.as_bytes(), total, 0);
        }
    }

    /// One turn. Returns how many loans it made.
    fn turn(&mut self, micros: u64) -> usize {
        self.now = Time(self.now.0 + micros);
        self.escrow.handle_timeout(self.now, &mut ReleaseAll);
        facts(&mut self.escrow).iter().filter(|(fact, ..)| matches!(fact, Fact::Lent { .. })).count()
    }
}

/// One turn lends of a bounded number of limits, and the next turns follow at once until all are served.
#[test]
fn a_turn_works_through_a_bounded_number_of_limits() {
    const LIMITS: usize = 20_000;
    let mut lender = Lender::new(LIMITS, 3);
    let (mut loans, mut turns, mut followed) = (0, 0, 0);
    while loans < LIMITS * 3 {
        let lent = lender.turn(1000);
        // Each visit of a limit by one of four parties may be a loan.
        assert!(lent <= 1 << 12, "{lent} loans in one turn");
        (loans, turns) = (loans + lent, turns + 1);
        followed += usize::from(lender.escrow.poll_timeout() <= lender.now);
        assert!(turns <= 21, "all limits are served in one round");
    }
    assert!(followed + 1 >= turns, "turns follow at once until the round is over");
    let shares: u64 = (0..LIMITS).map(|n| lender.escrow.share(&format!("campaign {n}")).units).sum();
    assert_eq!(shares, 0, "the borrowers have asked for all");
    assert_eq!((0..30).map(|_| lender.turn(1000)).sum::<usize>(), 0, "nothing is lent twice");
}
