//! Leases of shares: which process holds a seat. The other founders grant the lease without a common clock: all of them must
//! answer to begin it, and one of them to continue it (compare PaxosLease: Trencseni, Gazso and Reinhardt 2012).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::canary::{self, Canary};
use crate::limiter::board::{Other, Stage};
use crate::limiter::escrow::claim::{Begins, Claim, Epoch, Support, Vote};
use crate::limiter::escrow::release::Release;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::fact::Fact;
use crate::time::Time;

/// I9: a new process supports no claim that only asks before all claims that its predecessor supported have expired.
fn a_new_process_waits() -> bool {
    !canary::broken(Canary::UnprovenRestart)
}

impl Escrow {
    /// The claims held now, with their ends.
    pub(super) fn held_claims(&self) -> impl Iterator<Item = (usize, Time)> + '_ {
        let held = self.claims.iter().filter(|(_, claim)| claim.stage == Stage::Holding);
        held.map(|(seat, claim)| (*seat, self.lease_end(*seat, claim.id))).filter(|(_, end)| self.now < *end)
    }

    /// When a claim's lease ends: a fixed time after the last reading of this process's clock that another founder has
    /// answered.
    fn lease_end(&self, seat: usize, claim: u64) -> Time {
        if self.voters(seat).next().is_none() {
            // No other founder exists that could grant the share to another process or take it over.
            return Time::NEVER;
        }
        let heard =
            self.voters(seat).filter_map(|voter| self.best_support(voter, seat, claim)).map(|support| support.acked);
        heard.max().map_or(Time(0), |acked| self.moment(acked).after(self.times.lease))
    }

    /// The founders whose support a claim of this process needs.
    fn voters(&self, seat: usize) -> impl Iterator<Item = usize> + '_ {
        let all = 0..self.founding.founders.len();
        all.filter(move |voter| *voter != seat && Some(*voter) != self.own_seat)
    }

    /// A founder's latest support for a claim of this process, from any process of that founder.
    fn best_support(&self, voter: usize, seat: usize, claim: u64) -> Option<Support<'_>> {
        let node = self.founding.founders.get(voter)?;
        let given = self.board.of(node).filter_map(|(process, other)| {
            let (vote, acked) = *other.supports.get(&(seat, claim))?;
            Some(Support { acked, process, vote })
        });
        given.filter(|support| support.acked > 0).max()
    }

    /// Whether a process of the founder has published a heartbeat recently.
    fn is_around(&self, seat: usize) -> bool {
        let node = self.founding.founders.get(seat);
        node.is_some_and(|node| self.board.of(node).any(|(_, other)| other.is_fresh(self.now, self.times.loan)))
    }

    /// What this founder waits for before it has its own share; `None` when it has its share or is not a founder.
    pub fn begins(&self) -> Option<Begins> {
        let own_seat = self.own_seat.filter(|own_seat| self.held_claims().all(|(seat, _)| seat != *own_seat))?;
        let voters: Vec<usize> = self.voters(own_seat).filter(|voter| !self.is_forgotten(*voter)).collect();
        let names = |voter: &usize| self.founding.founders.get(*voter).cloned();
        let missing = voters.iter().filter(|voter| !self.is_around(**voter)).filter_map(names).collect();
        // A clock reading is the time since the start of its process.
        let ran = |voter: &usize| {
            let others = self.board.of(self.founding.founders.get(*voter)?).map(|(_, other)| other);
            let heard = others.filter_map(|other| Some((other.heard?, other.heartbeat))).max()?;
            Some(Duration::from_millis(heard.1) + self.now.since(heard.0))
        };
        let alone = voters.is_empty().then(|| self.now.since(self.started));
        let ran = voters.iter().filter_map(ran).chain(alone).min().unwrap_or_default();
        Some(Begins { after: self.times.lease_over.saturating_sub(ran), missing })
    }

    /// Whether this node receives news from all founders, except forgotten ones.
    pub fn hears_founders(&self) -> bool {
        let others = (0..self.founding.founders.len()).filter(|seat| Some(*seat) != self.own_seat);
        others.into_iter().all(|seat| self.is_around(seat) || self.is_forgotten(seat))
    }

    /// Whether this process has run for so long that every support given by an earlier process of this node has expired.
    fn is_mature(&self) -> bool {
        self.now >= self.started.after(self.times.lease_over) || !a_new_process_waits()
    }

    /// Supports claims of other processes: answers each new reading of their clocks.
    pub(super) fn vote(&mut self) {
        if self.own_seat.is_none() {
            return;
        }
        for seat in 0..self.founding.founders.len() {
            self.end_vote(seat);
            if Some(seat) == self.own_seat {
                continue;
            }
            if !self.votes.contains_key(&seat) {
                self.begin_vote(seat);
            }
            self.answer(seat);
        }
    }

    /// Ends a vote when the claim is over: because its owner stated so, or because the claimant was silent for too long.
    fn end_vote(&mut self, seat: usize) {
        let Some(vote) = self.votes.get(&seat) else { return };
        let over = if vote.to == self.process {
            self.claims.get(&seat).is_none_or(|claim| claim.id != vote.claim)
        } else {
            let known = self.board.others.get(&vote.to).and_then(|other| other.claims.get(&seat));
            let said = known
                .is_some_and(|(claim, stage)| *claim > vote.claim || (*claim == vote.claim && *stage == Stage::Over));
            said || self.now >= vote.at.after(self.times.lease_over)
        };
        if over && let Some(vote) = self.votes.remove(&seat) {
            self.rows.close(&Fact::Support { seat, to: vote.to, claim: vote.claim, vote: vote.id });
        }
    }

    fn begin_vote(&mut self, seat: usize) {
        let Some(name) = self.founding.founders.get(seat) else { return };
        let asks = |other: &Other| {
            let (claim, stage) = *other.claims.get(&seat)?;
            let fresh = other.is_fresh(self.now, self.times.loan);
            let may = stage == Stage::Holding || (stage == Stage::Asking && self.is_mature());
            (fresh && may).then_some((stage, other.heard, claim))
        };
        let of = |own: bool| {
            let asking = self.board.others.iter().filter(move |(process, _)| (process.node == *name) == own);
            asking.filter_map(|(process, other)| Some((asks(other)?, process, other.heartbeat))).max()
        };
        // A holder goes before a claimant, and the founder itself before a process that stands in for it.
        let best = [of(true), of(false)].into_iter().flatten().rev().max_by_key(|((stage, ..), ..)| *stage);
        let Some(((_, _, claim), process, heartbeat)) = best else { return };
        // This vote does not answer readings from before it began.
        let (to, acked) = (process.clone(), heartbeat.saturating_sub(1));
        let vote = Vote { to, claim, id: self.number(), acked, at: self.now };
        self.votes.insert(seat, vote);
    }

    fn answer(&mut self, seat: usize) {
        let Some(vote) = self.votes.get_mut(&seat) else { return };
        let Some(other) = self.board.others.get(&vote.to).filter(|other| other.heartbeat > vote.acked) else { return };
        (vote.acked, vote.at) = (other.heartbeat, self.now);
        let fact = Fact::Support { seat, to: vote.to.clone(), claim: vote.claim, vote: vote.id };
        let acked = vote.acked;
        self.rows.write(&fact, acked);
    }

    /// A new number for a claim or a vote of this process.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Claims this founder's own share and the shares of founders that are gone, and advances existing claims.
    pub(super) fn claim(&mut self, release: &dyn Release) {
        let Some(own_seat) = self.own_seat else { return };
        for seat in 0..self.founding.founders.len() {
            if self.claims.contains_key(&seat) {
                self.pursue(seat);
                self.end_if_over(seat, release);
            } else if !self.leaving && self.now >= self.again.get(&seat).copied().unwrap_or_default() {
                let wanted = seat == own_seat || self.stands_in(seat, own_seat);
                let free = seat == own_seat || !self.votes.contains_key(&seat);
                if wanted && free && (seat == own_seat || self.is_mature()) {
                    self.begin_claim(seat, own_seat);
                }
            }
        }
    }

    /// Whether a founder is gone and this process belongs to the first of the remaining founders.
    fn stands_in(&self, seat: usize, own_seat: usize) -> bool {
        let gone = self.founding.stand_in && !self.is_around(seat);
        gone && (0..own_seat).all(|before| before == seat || !self.is_around(before))
    }

    fn begin_claim(&mut self, seat: usize, own_seat: usize) {
        let id = self.number();
        let claim = Claim { id, stage: Stage::Asking, since: self.now, confirm: None, releasing: false };
        self.claims.insert(seat, claim);
        self.rows.write(&Fact::Claim { seat, claim: id }, Stage::Asking as u64);
        if seat != own_seat {
            let vote = Vote { to: self.process.clone(), claim: id, id: self.number(), acked: 0, at: self.now };
            self.votes.insert(seat, vote);
        }
    }

    fn pursue(&mut self, seat: usize) {
        let own = Some(seat) == self.own_seat;
        let Some(claim) = self.claims.get(&seat) else { return };
        let (id, stage, since) = (claim.id, claim.stage, claim.since);
        match stage {
            Stage::Asking => {
                let pointless = !own && self.is_around(seat);
                if pointless || self.leaving || self.now >= since.after(self.times.lease_over * 3) {
                    return self.end_claim(seat);
                }
                self.confirm(seat, id);
            }
            Stage::Holding => {
                if (!own && self.is_around(seat)) || self.leaving {
                    self.release(seat);
                }
            }
            Stage::Over => {}
        }
    }

    /// Ends a claim that is over. Loans based on it have expired as well. This process announces the end when that is certain
    /// and nothing based on the claim is in use any more.
    fn end_if_over(&mut self, seat: usize, release: &dyn Release) {
        let over = self.claims.get(&seat).filter(|claim| claim.stage == Stage::Over).map(|claim| claim.since);
        let Some(since) = over.filter(|_| self.stands()) else { return };
        let closed = self.names.keys().all(|name| self.overdue(name, release) == 0);
        if closed || self.now >= since.after(self.closing()) {
            self.end_claim(seat);
        }
    }

    /// Whether claims that this process keeps cover everything that it has lent.
    fn stands(&self) -> bool {
        self.names.iter().all(|(name, named)| {
            let kept: u64 = self.lendable_claims().map(|seat| self.initial_share(seat, named.quota.whole)).sum();
            self.outstanding(name) <= kept
        })
    }

    /// Makes a claim held when all founders support it and still support it after the support was complete: then there was a
    /// moment at which no founder supported another claim.
    fn confirm(&mut self, seat: usize, id: u64) {
        let needed: Vec<usize> = self.voters(seat).filter(|voter| !self.is_forgotten(*voter)).collect();
        let nobody = self.voters(seat).next().is_none();
        if needed.is_empty() && !(nobody && self.is_mature()) {
            // If all founders that could answer are forgotten, no founder is left that could extend the claim.
            return;
        }
        let given: Vec<_> =
            needed.iter().filter_map(|voter| Some((*voter, self.best_support(*voter, seat, id)?))).collect();
        if given.len() < needed.len() {
            return;
        }
        let votes: BTreeMap<_, _> = given.iter().map(|(voter, by)| (*voter, (by.process.clone(), by.vote))).collect();
        let heard = given.iter().map(|(_, by)| by.acked).min().unwrap_or(u64::MAX);
        let Some(claim) = self.claims.get_mut(&seat) else { return };
        match &claim.confirm {
            Some((from, supporters)) if *supporters == votes => {
                if heard >= *from {
                    claim.stage = Stage::Holding;
                    self.rows.write(&Fact::Claim { seat, claim: id }, Stage::Holding as u64);
                }
            }
            _ => {
                claim.confirm = Some((self.heartbeat + 1, votes));
                self.publish_heartbeat();
            }
        }
    }

    fn is_forgotten(&self, seat: usize) -> bool {
        self.founding.founders.get(seat).is_some_and(|node| self.forgotten.contains(node))
    }

    /// Ends what has expired. A claim without an answer for too long is over permanently.
    pub(super) fn lapse(&mut self) {
        self.lapse_loan_leases();
        let held: Vec<usize> = self.held_claims().map(|(seat, _)| seat).collect();
        let lost = self.claims.iter().filter(|(seat, claim)| claim.stage == Stage::Holding && !held.contains(seat));
        for seat in lost.map(|(seat, _)| *seat).collect::<Vec<_>>() {
            if let Some(claim) = self.claims.get_mut(&seat) {
                (claim.stage, claim.since) = (Stage::Over, self.now);
            }
        }
    }

    /// Begins a new epoch if this process holds other claims than before. Limits that rest depend on the epoch.
    pub(super) fn note_epoch(&mut self) {
        let held: Vec<_> =
            self.held_claims().filter_map(|(seat, _)| Some((seat, self.claims.get(&seat)?.id))).collect();
        if held != self.epoch.claims {
            self.epoch = Epoch { number: self.epoch.number + 1, since: self.now, claims: held };
        }
    }

    /// Gives a claim up as soon as no loan depends on it.
    fn release(&mut self, seat: usize) {
        if let Some(claim) = self.claims.get_mut(&seat).filter(|claim| !claim.releasing) {
            claim.releasing = true;
            self.end_loan_leases();
        }
        if self.stands()
            && let Some(claim) = self.claims.get_mut(&seat)
        {
            (claim.stage, claim.since) = (Stage::Over, self.now);
        }
    }

    /// The held claims that this process intends to keep.
    pub(super) fn lendable_claims(&self) -> impl Iterator<Item = usize> + '_ {
        let keeps = |seat: &usize| self.claims.get(seat).is_some_and(|claim| !claim.releasing);
        self.held_claims().map(|(seat, _)| seat).filter(keeps)
    }

    fn end_claim(&mut self, seat: usize) {
        let Some(claim) = self.claims.remove(&seat) else { return };
        let fact = Fact::Claim { seat, claim: claim.id };
        self.rows.write(&fact, Stage::Over as u64);
        self.rows.close(&fact);
        self.again.insert(seat, self.now.after(self.times.loan));
        self.end_vote(seat);
    }
}
