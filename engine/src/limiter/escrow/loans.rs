//! Loans: what a holder lends of its share, and what a borrower returns.
//!
//! A loan belongs to a **loan lease** between two processes. While the lender answers the borrower's heartbeats in that lease,
//! the borrower may use its loans. When the lender has not answered for long enough, the lease is over for both, for the
//! borrower first.
use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::{Bound, bounds};

use crate::limiter::board::{Lending, Other, REMEMBERED, Stage};
use crate::limiter::escrow::loan_lease::LoanLease;
use crate::limiter::escrow::release::{Release, lender_stops_first};
use crate::limiter::escrow::state::Escrow;
use crate::limiter::fact::{Fact, Process, Totals};
use crate::limiter::target::{self, Loans, Party};
use crate::time::Time;

/// The most loan leases with one borrower at a time: one active lease, and those that expire.
const LOAN_LEASES: usize = 4;

/// The most lenders whose ended loan leases this process remembers: more than ever lend during one process's life.
const ENDED: usize = 1 << 16;

/// All parties of a limit, including this node.
struct View {
    processes: Vec<Process>,
    loans: Loans,
    /// What this process holds.
    held: u64,
    us: usize,
    /// The parts are whole tokens, and of no use unless they are complete.
    exact: bool,
}

impl Escrow {
    /// The amount of a limit that this process has lent and not got back.
    pub(super) fn outstanding(&self, name: &str) -> u64 {
        self.lent.values().flatten().map(|lease| lease.left(name)).sum()
    }

    /// Whether another process has a demand for a limit.
    pub(super) fn is_asked_for(&self, name: &str) -> bool {
        let rate = self.names.get(name).and_then(|named| named.rate);
        self.board.others.values().any(|other| other.wants(name, rate) > 0)
    }

    /// Whether this process has borrowed anything of a limit and not returned it.
    pub(super) fn is_borrowed(&self, name: &str) -> bool {
        let lendings = self.board.others.values().flat_map(|other| other.lendings.values());
        lendings.into_iter().any(|lending| lending.loans.get(name).is_some_and(|loan| loan.left() > 0))
    }

    /// The loans of another process that this process may use now, with their end: those of its latest lease.
    pub(super) fn usable<'a>(&'a self, other: &'a Other, now: Time) -> impl Iterator<Item = (Time, &'a Lending)> {
        let latest = other.lendings.iter().rfind(|(_, lending)| lending.acked > 0);
        let ends = latest.map(|(_, lending)| (self.moment(lending.acked).after(self.times.loan), lending));
        ends.into_iter().filter(move |(end, _)| now < *end)
    }

    pub(super) fn learn_returned(&mut self, borrower: &Process, lease: u64, name: &Arc<str>, returned: u64) {
        let leases = self.lent.get_mut(borrower).into_iter().flatten();
        for lease in leases.filter(|known| known.id == lease) {
            if let Some(loan) = lease.loans.get_mut(name) {
                loan.returned = loan.returned.max(returned.min(loan.lent));
            }
        }
    }

    /// A borrower uses nothing of a loan lease any more, so the lender has everything back.
    pub(super) fn learn_ended(&mut self, borrower: &Process, lease: u64) {
        let leases = self.lent.get_mut(borrower).into_iter().flatten();
        for lease in leases.filter(|known| known.id == lease) {
            lease.ending = true;
            lease.loans.values_mut().for_each(|loan| loan.returned = loan.lent);
        }
    }

    pub(super) fn learn_ack(&mut self, now: Time, lender: &Process, lease: u64, acked: Totals) {
        if let Some(lending) = self.lending(now, lender, lease) {
            lending.acked = lending.acked.max(acked.added);
            lending.called |= acked.is_closed();
        }
    }

    pub(super) fn learn_lent(&mut self, now: Time, lender: &Process, lease: u64, name: Arc<str>, lent: Totals) {
        let answer = Fact::Returned { to: lender.clone(), lease, name: name.clone() };
        let Some(lending) = self.lending(now, lender, lease) else {
            if lent.is_closed() {
                self.rows.close(&answer);
                self.rows.close(&Fact::Ended { to: lender.clone(), lease });
            } else {
                self.end_lease_of(lender, lease);
            }
            return;
        };
        let full = lending.loans.len() >= bounds::SHARED_NAMES && !lending.loans.contains_key(&name);
        if lent.is_closed() {
            lending.loans.entry(name).and_modify(|loan| loan.lent = 0);
            self.rows.close(&answer);
        } else if full {
            // It is returned unused.
            self.board.tally.reached(Bound::SharedNames);
            self.rows.write(&answer, lent.added);
        } else {
            let loan = lending.loans.entry(name).or_default();
            loan.lent = loan.lent.max(lent.added);
        }
    }

    /// The loans of a lender in a lease; `None` when the lease is over.
    fn lending(&mut self, now: Time, lender: &Process, lease: u64) -> Option<&mut Lending> {
        if self.ended.get(lender).is_some_and(|ended| lease <= *ended)
            || (self.ended.len() >= ENDED && !self.ended.contains_key(lender))
        {
            return None;
        }
        let other = self.board.entry(now, lender)?;
        if other.lendings.len() >= REMEMBERED && !other.lendings.contains_key(&lease) {
            return None;
        }
        Some(other.lendings.entry(lease).or_default())
    }

    /// Permanently ends a loan lease of a lender for this process, and states that.
    fn end_lease_of(&mut self, lender: &Process, lease: u64) {
        self.note_end(lender, lease);
        self.rows.write(&Fact::Ended { to: lender.clone(), lease }, 1);
    }

    /// From now on, the loan leases of a lender up to this one are over, whatever this process receives.
    fn note_end(&mut self, lender: &Process, lease: u64) {
        if let Some(ended) = self.ended.get_mut(lender) {
            *ended = lease.max(*ended);
        } else if self.ended.len() < ENDED {
            self.ended.insert(lender.clone(), lease);
        }
    }

    /// Permanently ends loan leases without an answer for too long. This process forgets what it returned in them, so no late
    /// answer may revive them. The lender learns of the end when nothing can be in use any more.
    pub(super) fn end_lendings(&mut self) {
        let mut over = Vec::new();
        for (process, other) in &self.board.others {
            let Some((last, lending)) = other.lendings.last_key_value() else { continue };
            let end = self.moment(lending.acked).after(self.times.loan).after(self.closing());
            let upto = if lending.acked > 0 && self.now >= end {
                Some(*last)
            } else {
                other.lendings.keys().rev().nth(1).copied()
            };
            let left = |lending: &Lending| lending.loans.values().any(|loan| loan.left() > 0);
            // An earlier lease is over as soon as everything in it is returned.
            if let Some(upto) =
                upto.filter(|upto| *upto == *last || !other.lendings.range(..=*upto).any(|(_, l)| left(l)))
            {
                over.push((process.clone(), upto));
            }
        }
        for (process, upto) in over {
            let Some(other) = self.board.others.get_mut(&process) else { continue };
            let later = other.lendings.split_off(&(upto + 1));
            let ended = std::mem::replace(&mut other.lendings, later);
            self.note_end(&process, upto);
            for (lease, lending) in ended {
                if lending.loans.values().any(|loan| loan.lent > 0) {
                    self.end_lease_of(&process, lease);
                }
            }
        }
    }

    /// Forgets processes that have been silent for long, and ends their leases.
    pub(super) fn forget_silent(&mut self) {
        for (process, other) in self.board.forget(self.now, self.times.lease_over * 3) {
            if let Some((last, _)) = other.lendings.last_key_value() {
                self.note_end(&process, *last);
            }
            self.rows.close_answers_to(&process);
        }
        self.end_lendings();
    }

    /// Ends all loan leases that this process has granted: borrowers receive the end, and return the loans or let them expire.
    pub(super) fn end_loan_leases(&mut self) {
        let mut ending = Vec::new();
        for (borrower, leases) in &mut self.lent {
            for lease in leases.iter_mut().filter(|lease| !lease.ending) {
                lease.ending = true;
                ending.push((borrower.clone(), lease.id));
            }
        }
        for (to, lease) in ending {
            self.rows.close(&Fact::Ack { to, lease });
        }
    }

    /// Ends loan leases that have expired, and ending leases in which nothing is lent.
    pub(super) fn lapse_loan_leases(&mut self) {
        let (now, over) = (self.now, self.times.loan_over);
        let mut ended = Vec::new();
        for (borrower, leases) in &mut self.lent {
            leases.retain_mut(|lease| {
                // A lease in which everything is returned ends, so that its rows can be retired.
                lease.ending |= lease.is_empty() && now > lease.used.after(over);
                let stays = now < lease.at.after(over) && !(lease.ending && lease.is_empty());
                if !stays {
                    ended.push((borrower.clone(), lease.clone()));
                }
                stays
            });
        }
        self.lent.retain(|_, leases| !leases.is_empty());
        for (to, lease) in ended {
            self.rows.close(&Fact::Ack { to: to.clone(), lease: lease.id });
            for name in lease.loans.into_keys() {
                self.rows.close(&Fact::Lent { to: to.clone(), lease: lease.id, name });
            }
        }
    }

    /// Whether loans made now are returned or expire before any lease of this process may end.
    fn may_lend(&self) -> bool {
        let first = self.held_claims().map(|(_, end)| end).min();
        first.is_some_and(|end| self.now.after(self.times.loan_over) < end)
    }

    /// All parties that have a demand for a limit or hold a part of it, in order, and their targets. `seats` are the claims that
    /// this process intends to keep. O(parties).
    fn view(&self, name: &str, seats: &[usize]) -> Option<View> {
        let named = self.names.get(name)?;
        let whole = named.quota.whole;
        let part = |seats: &mut dyn Iterator<Item = usize>| seats.map(|seat| self.initial_share(seat, whole)).sum();
        let held: u64 = part(&mut seats.iter().copied());
        let ours = Party { held, demand: if self.leaving { 0 } else { named.demand } };
        let (mut processes, mut parties, mut us) = (Vec::new(), Vec::new(), None);
        let fresh = self.board.others.iter().filter(|(_, other)| other.is_fresh(self.now, self.times.loan));
        for (process, other) in fresh {
            if us.is_none() && *process > self.process {
                us = Some(parties.len());
                processes.push(self.process.clone());
                parties.push(ours);
            }
            let holds = other.claims.iter().filter(|(_, (_, stage))| *stage == Stage::Holding);
            let held: u64 = part(&mut holds.map(|(seat, _)| *seat));
            let demand = other.wants(name, named.rate).min(whole);
            if held > 0 || demand > 0 {
                processes.push(process.clone());
                parties.push(Party { held, demand });
            }
        }
        let us = us.unwrap_or_else(|| {
            processes.push(self.process.clone());
            parties.push(ours);
            parties.len() - 1
        });
        let target = target::fair(&parties, named.quota, named.round);
        let wanting = parties.iter().filter(|party| party.demand > 0).count() as u64;
        let exact = parties.iter().map(|party| party.held).sum::<u64>() < named.quota.least.saturating_mul(wanting);
        Some(View { processes, loans: Loans::new(&parties, &target), held, us, exact })
    }

    /// Returns borrowed amounts beyond this process's target, and everything from leases that are not the latest.
    pub(super) fn give_back(&mut self, release: &mut dyn Release) {
        let lenders: Vec<Process> = self
            .board
            .others
            .iter()
            .filter(|(_, other)| !other.lendings.is_empty())
            .map(|(process, _)| process.clone())
            .collect();
        if lenders.is_empty() {
            return;
        }
        let (slice, seats) = (self.slice.clone(), self.lendable_claims().collect::<Vec<_>>());
        let mut views: BTreeMap<Arc<str>, Option<View>> = BTreeMap::new();
        for lender in lenders {
            let Some(other) = self.board.others.get(&lender) else { continue };
            let latest = other.lendings.iter().rfind(|(_, lending)| lending.acked > 0);
            let latest = latest.map(|(lease, lending)| (*lease, lending.called));
            let loans: Vec<_> = other
                .lendings
                .iter()
                .flat_map(|(lease, lending)| {
                    let loans = lending.loans.range::<str, _>(slice.range()).filter(|(_, loan)| loan.left() > 0);
                    loans.map(move |(name, loan)| (*lease, name.clone(), *loan))
                })
                .collect();
            for (lease, name, loan) in loans {
                let view = views.entry(name.clone()).or_insert_with(|| self.view(&name, &seats));
                let exact = view.as_ref().is_some_and(|view| view.exact);
                let wanted = match view {
                    _ if latest.is_some_and(|(latest, called)| latest > lease || called) || self.leaving => 0,
                    Some(view) => match view.processes.binary_search(&lender).ok() {
                        Some(at) => view.loans.between(at, view.us),
                        // The lender was silent recently; its loans end with their lease.
                        None => continue,
                    },
                    None => 0,
                };
                let whole = self.names.get(&name).map_or(0, |named| named.quota.whole);
                let excess = loan.left().saturating_sub(wanted);
                if excess > 0 && (wanted == 0 || exact || excess > whole / 64) {
                    self.give_back_to(&lender, lease, name, excess, release);
                }
            }
        }
    }

    fn give_back_to(&mut self, lender: &Process, lease: u64, name: Arc<str>, excess: u64, release: &mut dyn Release) {
        let usable = self.board.others.get(lender).is_some_and(|other| {
            let latest = self.usable(other, self.now).next();
            latest.is_some_and(|(_, lending)| other.lendings.get(&lease).is_some_and(|l| std::ptr::eq(l, lending)))
        });
        // Expired loans are idle anyway, except for permits that are still to be closed.
        let idle = if usable {
            release.release(&name, excess).min(excess)
        } else {
            excess.saturating_sub(self.overdue(&name, release))
        };
        if idle == 0 {
            return;
        }
        let Some(other) = self.board.others.get_mut(lender) else { return };
        let Some(loan) = other.lendings.get_mut(&lease).and_then(|lending| lending.loans.get_mut(&name)) else {
            return;
        };
        loan.returned = loan.returned.saturating_add(idle);
        let total = loan.returned;
        self.rows.write(&Fact::Returned { to: lender.clone(), lease, name }, total);
    }

    /// Answers the heartbeats of borrowers, and lends them the part of their targets that this process does not need.
    pub(super) fn lend(&mut self, release: &mut dyn Release) {
        let may_lend = self.may_lend();
        if may_lend {
            self.answer_borrowers();
        }
        if !may_lend || self.leaving {
            return;
        }
        let seats: Vec<_> = self.lendable_claims().collect();
        let names = self.names.range::<str, _>(self.slice.range()).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            if !self.is_asked_for(&name) {
                continue;
            }
            let Some(view) = self.view(&name, &seats) else { continue };
            let mut free = view.held.saturating_sub(self.outstanding(&name));
            for (at, process) in view.processes.iter().enumerate().filter(|(at, _)| *at != view.us) {
                let loan = view.loans.between(view.us, at);
                let has = self.lent.get(process).map_or(0, |leases| leases.iter().map(|lease| lease.left(&name)).sum());
                let more = loan.saturating_sub(has);
                if more > 0 && (view.exact || more > loan / 64) {
                    free -= self.lend_to(process, &name, more.min(free), release);
                }
            }
        }
    }

    /// Lends at most `free`. Returns how much it has lent.
    fn lend_to(&mut self, borrower: &Process, name: &Arc<str>, free: u64, release: &mut dyn Release) -> u64 {
        let Some(heartbeat) = self.board.others.get(borrower).map(|other| other.heartbeat) else { return 0 };
        let leases = self.lent.get(borrower).map_or(&[][..], |leases| leases);
        // A lease this old makes room for a new one, so that the rows of names lent only once do not stay for ever.
        let old = |lease: &LoanLease| self.now.since(lease.began) > self.times.loan * 64 && lease.loans.len() > 1;
        let runs = leases.last().filter(|lease| !lease.ending && !old(lease)).map(|lease| lease.id);
        if free == 0 || (runs.is_none() && leases.len() >= LOAN_LEASES) {
            return 0;
        }
        let given = if lender_stops_first() { release.release(name, free).min(free) } else { free };
        if given == 0 {
            return 0;
        }
        let id = runs.unwrap_or_else(|| self.begin_loan_lease(borrower, heartbeat));
        let lease = self.lent.get_mut(borrower).and_then(|leases| leases.iter_mut().find(|lease| lease.id == id));
        let Some(lease) = lease else { return 0 };
        let loan = lease.loans.entry(name.clone()).or_default();
        loan.lent = loan.lent.saturating_add(given);
        lease.used = self.now;
        let total = loan.lent;
        self.rows.write(&Fact::Lent { to: borrower.clone(), lease: id, name: name.clone() }, total);
        given
    }

    fn begin_loan_lease(&mut self, borrower: &Process, acked: u64) -> u64 {
        let id = self.next_loan_lease;
        self.next_loan_lease += 1;
        let leases = self.lent.entry(borrower.clone()).or_default();
        leases.iter_mut().for_each(|lease| lease.ending = true);
        leases.push(LoanLease {
            id,
            began: self.now,
            acked,
            at: self.now,
            ending: false,
            used: self.now,
            loans: BTreeMap::new(),
        });
        self.rows.write(&Fact::Ack { to: borrower.clone(), lease: id }, acked);
        id
    }

    fn answer_borrowers(&mut self) {
        let mut answers = Vec::new();
        for (borrower, leases) in &mut self.lent {
            let Some(other) = self.board.others.get(borrower) else { continue };
            for lease in leases.iter_mut().filter(|lease| !lease.ending && other.heartbeat > lease.acked) {
                (lease.acked, lease.at) = (other.heartbeat, self.now);
                answers.push((borrower.clone(), lease.id, lease.acked));
            }
        }
        for (to, lease, acked) in answers {
            self.rows.write(&Fact::Ack { to, lease }, acked);
        }
    }
}
