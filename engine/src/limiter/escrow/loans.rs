//! Loans: what a holder lends of its share, and what a borrower returns.
//!
//! A loan belongs to a **term** between two processes. While the lender answers the borrower's heartbeats in that term, the
//! borrower may use its loans. When the lender has not answered for long enough, the term is over for both, for the borrower
//! first.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::{Bound, bounds};

use crate::canary::{self, Canary};
use crate::limiter::board::{Lending, Other, REMEMBERED};
use crate::limiter::escrow::{Escrow, Release};
use crate::limiter::fact::{Fact, Seat};
use crate::limiter::target::{self, Party};
use crate::time::Time;

/// The most terms with one borrower at a time: one active term, and those that expire.
const TERMS: usize = 4;

/// The most lenders whose ended terms this process remembers: more than ever lend during one process's life.
const ENDED: usize = 1 << 16;

/// Added to the returned amount of a term that is over for the borrower, so that the lender ends the term as well.
const REFUSED: u64 = 1 << 39;

/// The loan under one name in one term.
#[derive(Clone, Copy, Debug, Default)]
struct Loan {
    lent: u64,
    returned: u64,
}

/// A term with a borrower, on the lender's side.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    id: u64,
    began: Time,
    /// The last reading of the borrower's clock that this process has answered.
    beat: u64,
    /// When it answered.
    at: Time,
    /// The term is no longer answered: its loans are returned or expire.
    ending: bool,
    /// When the lender last lent something in it.
    used: Time,
    loans: BTreeMap<Arc<str>, Loan>,
}

impl Term {
    /// The amount of a limit that is still lent.
    pub(crate) fn left(&self, name: &str) -> u64 {
        self.loans.get(name).map_or(0, |loan| loan.lent.saturating_sub(loan.returned))
    }

    fn is_empty(&self) -> bool {
        self.loans.values().all(|loan| loan.lent <= loan.returned)
    }
}

/// All parties of a limit, including this node.
struct View {
    seats: Vec<Seat>,
    parties: Vec<Party>,
    target: Vec<u64>,
    us: usize,
    /// The parts are whole tokens, and of no use unless they are complete.
    exact: bool,
}

impl Escrow {
    /// The amount of a limit that this process has lent and not got back.
    pub(crate) fn outstanding(&self, name: &str) -> u64 {
        self.lent.values().flatten().map(|term| term.left(name)).sum()
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

    /// The loans of another process that this process may use now, with their end: those of its latest term.
    pub(crate) fn usable<'a>(&'a self, other: &'a Other, now: Time) -> impl Iterator<Item = (Time, &'a Lending)> {
        let latest = other.lendings.iter().rfind(|(_, lending)| lending.beat > 0);
        let ends = latest.map(|(_, lending)| (self.moment(lending.beat).after(self.times.loan), lending));
        ends.into_iter().filter(move |(end, _)| now < *end)
    }

    pub(super) fn learn_returned(&mut self, borrower: &Seat, term: u64, name: &Arc<str>, returned: u64) {
        let terms = self.lent.get_mut(borrower).into_iter().flatten();
        for term in terms.filter(|known| known.id == term) {
            let Some(loan) = term.loans.get_mut(name) else { continue };
            loan.returned = loan.returned.max(returned.min(loan.lent));
            term.ending |= returned >= REFUSED;
        }
    }

    pub(super) fn learn_ack(&mut self, now: Time, lender: &Seat, term: u64, beat: u64, closed: bool) {
        if let Some(lending) = self.lending(now, lender, term) {
            lending.beat = lending.beat.max(beat);
            lending.called |= closed;
        }
    }

    pub(super) fn learn_lent(&mut self, now: Time, lender: &Seat, term: u64, name: Arc<str>, lent: u64, closed: bool) {
        let Some(lending) = self.lending(now, lender, term) else {
            if !closed {
                self.refuse(lender, term, name, lent);
            }
            return;
        };
        if lending.loans.len() >= bounds::SHARED_NAMES && !lending.loans.contains_key(&name) {
            self.board.tally.reached(Bound::SharedNames);
            return self.refuse(lender, term, name, lent);
        }
        let loan = lending.loans.entry(name.clone()).or_default();
        if closed {
            loan.lent = 0;
            self.close(&Fact::Returned { to: lender.clone(), term, name });
        } else if lent < REFUSED {
            loan.lent = loan.lent.max(lent);
        }
    }

    /// The loans of a lender in a term; `None` when the term is over.
    fn lending(&mut self, now: Time, lender: &Seat, term: u64) -> Option<&mut Lending> {
        if self.ended.get(lender).is_some_and(|ended| term <= *ended)
            || (self.ended.len() >= ENDED && !self.ended.contains_key(lender))
        {
            return None;
        }
        let other = self.board.entry(now, lender)?;
        if other.lendings.len() >= REMEMBERED && !other.lendings.contains_key(&term) {
            return None;
        }
        Some(other.lendings.entry(term).or_default())
    }

    fn refuse(&mut self, lender: &Seat, term: u64, name: Arc<str>, lent: u64) {
        self.write(&Fact::Returned { to: lender.clone(), term, name }, lent.saturating_add(REFUSED));
    }

    /// Permanently ends terms without an answer for too long. This process forgets what it returned in them, so no late answer
    /// may revive them. The lender learns of the end when nothing can be in use any more.
    pub(super) fn end_lendings(&mut self) {
        let mut over = Vec::new();
        for (seat, other) in &self.board.others {
            let Some((last, lending)) = other.lendings.last_key_value() else { continue };
            let end = self.moment(lending.beat).after(self.times.loan).after(self.closing());
            let upto = if lending.beat > 0 && self.now >= end {
                Some(*last)
            } else {
                other.lendings.keys().rev().nth(1).copied()
            };
            let left = |lending: &Lending| lending.loans.values().any(|loan| loan.left() > 0);
            // An earlier term is over as soon as everything in it is returned.
            if let Some(upto) =
                upto.filter(|upto| *upto == *last || !other.lendings.range(..=*upto).any(|(_, l)| left(l)))
            {
                over.push((seat.clone(), upto));
            }
        }
        for (seat, upto) in over {
            let Some(other) = self.board.others.get_mut(&seat) else { continue };
            let later = other.lendings.split_off(&(upto + 1));
            let ended = std::mem::replace(&mut other.lendings, later);
            self.ended.insert(seat.clone(), upto);
            for (term, lending) in ended {
                for (name, loan) in lending.loans.into_iter().filter(|(_, loan)| loan.lent > 0) {
                    self.refuse(&seat, term, name, loan.lent);
                }
            }
        }
    }

    /// Forgets processes that have been silent for long, and ends their terms.
    pub(super) fn forget_silent(&mut self) {
        for (seat, other) in self.board.forget(self.now, self.times.lease_over * 3) {
            if let Some((last, _)) = other.lendings.last_key_value() {
                self.ended.insert(seat.clone(), *last);
            }
            self.close_answers_to(&seat);
        }
        self.end_lendings();
    }

    /// Ends all terms that this process has granted: borrowers receive the end, and return the loans or let them expire.
    pub(super) fn end_terms(&mut self) {
        let mut ending = Vec::new();
        for (borrower, terms) in &mut self.lent {
            for term in terms.iter_mut().filter(|term| !term.ending) {
                term.ending = true;
                ending.push((borrower.clone(), term.id));
            }
        }
        for (to, term) in ending {
            self.close(&Fact::Ack { to, term });
        }
    }

    /// Ends terms that have expired, and ending terms in which nothing is lent.
    pub(super) fn lapse_terms(&mut self) {
        let (now, over) = (self.now, self.times.loan_over);
        let mut ended = Vec::new();
        for (borrower, terms) in &mut self.lent {
            terms.retain_mut(|term| {
                // A term in which everything is returned ends, so that its rows can be retired.
                term.ending |= term.is_empty() && now > term.used.after(over);
                let stays = now < term.at.after(over) && !(term.ending && term.is_empty());
                if !stays {
                    ended.push((borrower.clone(), term.clone()));
                }
                stays
            });
        }
        self.lent.retain(|_, terms| !terms.is_empty());
        for (to, term) in ended {
            self.close(&Fact::Ack { to: to.clone(), term: term.id });
            for name in term.loans.into_keys() {
                self.close(&Fact::Lent { to: to.clone(), term: term.id, name });
            }
        }
    }

    /// Whether loans made now are returned or expire before any lease of this process may end.
    fn may_lend(&self) -> bool {
        let first = self.held_claims().map(|(_, end)| end).min();
        first.is_some_and(|end| self.now.after(self.times.loan_over) < end)
    }

    /// All parties that have a demand for a limit or hold a part of it, and their targets.
    fn view(&self, name: &str) -> Option<View> {
        let named = self.names.get(name)?;
        let whole = named.quota.whole;
        let mut seats = vec![self.seat.clone()];
        let held: u64 = self.lendable_claims().map(|founder| self.founded(founder, whole)).sum();
        let mut parties = vec![Party { held, demand: if self.leaving { 0 } else { named.demand } }];
        for (seat, other) in self.board.others.iter().filter(|(_, other)| other.is_fresh(self.now, self.times.loan)) {
            let holds = other.claims.iter().filter(|(_, (_, stage))| *stage == crate::limiter::escrow::Stage::Holding);
            let held: u64 = holds.map(|(founder, _)| self.founded(*founder, whole)).sum();
            let demand = other.wants(name, named.rate).min(whole);
            if held > 0 || demand > 0 {
                seats.push(seat.clone());
                parties.push(Party { held, demand });
            }
        }
        let mut order: Vec<usize> = (0..seats.len()).collect();
        order.sort_by(|a, b| seats[*a].cmp(&seats[*b]));
        let us = order.iter().position(|i| *i == 0)?;
        let seats: Vec<_> = order.iter().map(|i| seats[*i].clone()).collect();
        let parties: Vec<_> = order.iter().map(|i| parties[*i]).collect();
        let target = target::fair(&parties, named.quota, named.round);
        let wanting = parties.iter().filter(|party| party.demand > 0).count() as u64;
        let exact = parties.iter().map(|party| party.held).sum::<u64>() < named.quota.least.saturating_mul(wanting);
        Some(View { seats, parties, target, us, exact })
    }

    /// Returns borrowed amounts beyond this process's target, and everything from terms that are not the latest.
    pub(super) fn give_back(&mut self, release: &mut dyn Release) {
        let lenders: Vec<Seat> = self
            .board
            .others
            .iter()
            .filter(|(_, other)| !other.lendings.is_empty())
            .map(|(seat, _)| seat.clone())
            .collect();
        if lenders.is_empty() {
            return;
        }
        let mut views: BTreeMap<Arc<str>, Option<View>> = BTreeMap::new();
        for lender in lenders {
            let Some(other) = self.board.others.get(&lender) else { continue };
            let latest = other.lendings.iter().rfind(|(_, lending)| lending.beat > 0);
            let latest = latest.map(|(term, lending)| (*term, lending.called));
            let loans: Vec<_> = other
                .lendings
                .iter()
                .flat_map(|(term, lending)| lending.loans.iter().map(move |(name, loan)| (*term, name.clone(), *loan)))
                .filter(|(.., loan)| loan.left() > 0)
                .collect();
            for (term, name, loan) in loans {
                let view = views.entry(name.clone()).or_insert_with(|| self.view(&name));
                let exact = view.as_ref().is_some_and(|view| view.exact);
                let wanted = match view {
                    _ if latest.is_some_and(|(latest, called)| latest > term || called) || self.leaving => 0,
                    Some(view) => match view.seats.iter().position(|seat| *seat == lender) {
                        Some(at) => target::loan(&view.parties, &view.target, at, view.us),
                        // The lender was silent recently; its loans end with their term.
                        None => continue,
                    },
                    None => 0,
                };
                let whole = self.names.get(&name).map_or(0, |named| named.quota.whole);
                let excess = loan.left().saturating_sub(wanted);
                if excess > 0 && (wanted == 0 || exact || excess > whole / 64) {
                    self.give_back_to(&lender, term, name, excess, release);
                }
            }
        }
    }

    fn give_back_to(&mut self, lender: &Seat, term: u64, name: Arc<str>, excess: u64, release: &mut dyn Release) {
        let usable = self.board.others.get(lender).is_some_and(|other| {
            let latest = self.usable(other, self.now).next();
            latest.is_some_and(|(_, lending)| other.lendings.get(&term).is_some_and(|l| std::ptr::eq(l, lending)))
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
        let Some(loan) = other.lendings.get_mut(&term).and_then(|lending| lending.loans.get_mut(&name)) else { return };
        loan.returned = loan.returned.saturating_add(idle);
        let total = loan.returned;
        self.write(&Fact::Returned { to: lender.clone(), term, name }, total);
    }

    /// Answers the heartbeats of borrowers, and lends them the part of their targets that this process does not need.
    pub(super) fn lend(&mut self, release: &mut dyn Release) {
        let may_lend = self.may_lend();
        self.answer_borrowers(may_lend);
        if !may_lend || self.leaving {
            return;
        }
        let names: Vec<Arc<str>> = self.names.keys().cloned().collect();
        for name in names {
            if !self.is_asked_for(&name) {
                continue;
            }
            let Some(view) = self.view(&name) else { continue };
            for (at, seat) in view.seats.iter().enumerate().filter(|(at, _)| *at != view.us) {
                let loan = target::loan(&view.parties, &view.target, view.us, at);
                let has = self.lent.get(seat).map_or(0, |terms| terms.iter().map(|term| term.left(&name)).sum());
                let more = loan.saturating_sub(has);
                if more > 0 && (view.exact || more > loan / 64) {
                    self.lend_to(seat, &name, more, view.parties[view.us].held, release);
                }
            }
        }
    }

    fn lend_to(&mut self, borrower: &Seat, name: &Arc<str>, more: u64, held: u64, release: &mut dyn Release) {
        let free = held.saturating_sub(self.outstanding(name)).min(more);
        let Some(beat) = self.board.others.get(borrower).map(|other| other.beat) else { return };
        let terms = self.lent.get(borrower).map_or(&[][..], |terms| terms);
        // A term this old makes room for a new one, so that the rows of names lent only once do not stay for ever.
        let old = |term: &Term| self.now.since(term.began) > self.times.loan * 64 && term.loans.len() > 1;
        let runs = terms.last().filter(|term| !term.ending && !old(term)).map(|term| term.id);
        if free == 0 || (runs.is_none() && terms.len() >= TERMS) {
            return;
        }
        let given = if canary::broken(Canary::TakenBeforeGiven) { free } else { release.release(name, free).min(free) };
        if given == 0 {
            return;
        }
        let id = runs.unwrap_or_else(|| self.begin_term(borrower, beat));
        let term = self.lent.get_mut(borrower).and_then(|terms| terms.iter_mut().find(|term| term.id == id));
        let Some(term) = term else { return };
        let loan = term.loans.entry(name.clone()).or_default();
        loan.lent = loan.lent.saturating_add(given);
        term.used = self.now;
        let total = loan.lent;
        self.write(&Fact::Lent { to: borrower.clone(), term: id, name: name.clone() }, total);
    }

    fn begin_term(&mut self, borrower: &Seat, beat: u64) -> u64 {
        let id = self.next_term;
        self.next_term += 1;
        let terms = self.lent.entry(borrower.clone()).or_default();
        terms.iter_mut().for_each(|term| term.ending = true);
        terms.push(Term {
            id,
            began: self.now,
            beat,
            at: self.now,
            ending: false,
            used: self.now,
            loans: BTreeMap::new(),
        });
        self.write(&Fact::Ack { to: borrower.clone(), term: id }, beat);
        id
    }

    fn answer_borrowers(&mut self, may_lend: bool) {
        if !may_lend {
            return;
        }
        let mut answers = Vec::new();
        for (borrower, terms) in &mut self.lent {
            let Some(other) = self.board.others.get(borrower) else { continue };
            for term in terms.iter_mut().filter(|term| !term.ending && other.beat > term.beat) {
                (term.beat, term.at) = (other.beat, self.now);
                answers.push((borrower.clone(), term.id, term.beat));
            }
        }
        for (to, term, beat) in answers {
            self.write(&Fact::Ack { to, term }, beat);
        }
    }
}
