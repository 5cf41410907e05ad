//! Leases of shares (tenure): which process holds a founder's share. The other founders grant the lease without a common clock:
//! all of them must answer to begin it, and one of them to continue it (compare PaxosLease: Trencseni, Gazso and Reinhardt
//! 2012).

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::NodeName;

use crate::canary::{self, Canary};
use crate::limiter::board::{Other, Stage};
use crate::limiter::escrow::{Escrow, Release};
use crate::limiter::fact::{Fact, Seat};
use crate::time::Time;

/// This process's vote for a claim to a founder's share. It votes for itself when it makes the claim.
#[derive(Clone, Debug)]
pub(crate) struct Vote {
    pub(crate) to: Seat,
    pub(crate) claim: u64,
    /// The number of this vote.
    id: u64,
    /// The last reading of the claimant's clock that this process has answered.
    beat: u64,
    /// When it answered.
    at: Time,
}

/// A founder's support for a claim of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Support<'a> {
    /// The last reading of this process's clock that it answers.
    beat: u64,
    seat: &'a Seat,
    vote: u64,
}

/// The supporters of a claim: for each founder, the process and the vote.
type Votes = BTreeMap<usize, (Seat, u64)>;

/// A claim of this process to a founder's share.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: u64,
    stage: Stage,
    /// When it began, or when it was over.
    since: Time,
    /// Set once all founders support the claim: the reading of this process's clock that all supporters must receive, and the
    /// supporters with their vote numbers. A supporter that turned away and came back has another number.
    confirm: Option<(u64, Votes)>,
    /// Give the claim up as soon as no loan depends on it.
    pub(crate) releasing: bool,
}

/// What a founder without its own share waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begins {
    /// The time until all founders that this node receives news from have run for long enough.
    pub after: Duration,
    /// The founders that this node receives no news from. Each of them must come back or be forgotten.
    pub missing: Vec<NodeName>,
}

/// A period in which this process holds the same claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch {
    pub(super) number: u64,
    pub(super) since: Time,
    claims: Vec<(usize, u64)>,
}

impl Escrow {
    /// The claims held now, with their ends.
    pub(crate) fn held_claims(&self) -> impl Iterator<Item = (usize, Time)> + '_ {
        let held = self.claims.iter().filter(|(_, claim)| claim.stage == Stage::Holding);
        held.map(|(founder, claim)| (*founder, self.lease_end(*founder, claim.id))).filter(|(_, end)| self.now < *end)
    }

    /// When a claim's lease ends: a fixed time after the last reading of this process's clock that another founder has
    /// answered.
    fn lease_end(&self, founder: usize, claim: u64) -> Time {
        if self.voters(founder).next().is_none() {
            // No other founder exists that could grant the share to another process or take it over.
            return Time::NEVER;
        }
        let heard = self
            .voters(founder)
            .filter_map(|voter| self.best_support(voter, founder, claim))
            .map(|support| support.beat);
        heard.max().map_or(Time(0), |beat| self.moment(beat).after(self.times.lease))
    }

    /// The founders whose support a claim of this process needs.
    fn voters(&self, founder: usize) -> impl Iterator<Item = usize> + '_ {
        let all = 0..self.founding.founders.len();
        all.filter(move |voter| *voter != founder && Some(*voter) != self.rank)
    }

    /// A founder's latest support for a claim of this process, from any process of that founder.
    fn best_support(&self, voter: usize, founder: usize, claim: u64) -> Option<Support<'_>> {
        let node = self.founding.founders.get(voter)?;
        let given = self.board.of(node).filter_map(|(seat, other)| {
            let (vote, beat) = *other.supports.get(&(founder, claim))?;
            Some(Support { beat, seat, vote })
        });
        given.filter(|support| support.beat > 0).max()
    }

    /// Whether a process of the founder has published a heartbeat recently.
    fn is_around(&self, founder: usize) -> bool {
        let node = self.founding.founders.get(founder);
        node.is_some_and(|node| self.board.of(node).any(|(_, other)| other.is_fresh(self.now, self.times.loan)))
    }

    /// What this founder waits for before it has its own share; `None` when it has its share or is not a founder.
    pub fn begins(&self) -> Option<Begins> {
        let rank = self.rank.filter(|rank| self.held_claims().all(|(founder, _)| founder != *rank))?;
        let voters: Vec<usize> = self.voters(rank).filter(|voter| !self.is_forgotten(*voter)).collect();
        let names = |voter: &usize| self.founding.founders.get(*voter).cloned();
        let missing = voters.iter().filter(|voter| !self.is_around(**voter)).filter_map(names).collect();
        // A clock reading is the time since the start of its process.
        let ran = |voter: &usize| {
            let others = self.board.of(self.founding.founders.get(*voter)?).map(|(_, other)| other);
            let heard = others.filter_map(|other| Some((other.heard?, other.beat))).max()?;
            Some(Duration::from_millis(heard.1) + self.now.since(heard.0))
        };
        let alone = voters.is_empty().then(|| self.now.since(self.started));
        let ran = voters.iter().filter_map(ran).chain(alone).min().unwrap_or_default();
        Some(Begins { after: self.times.lease_over.saturating_sub(ran), missing })
    }

    /// Whether this node receives news from all founders, except forgotten ones.
    pub fn hears_founders(&self) -> bool {
        let others = (0..self.founding.founders.len()).filter(|founder| Some(*founder) != self.rank);
        others.into_iter().all(|founder| self.is_around(founder) || self.is_forgotten(founder))
    }

    /// Whether this process has run for so long that every support given by an earlier process of this node has expired.
    fn is_mature(&self) -> bool {
        self.now >= self.started.after(self.times.lease_over) || canary::broken(Canary::UnprovenRestart)
    }

    /// Supports claims of other processes: answers each new reading of their clocks.
    pub(crate) fn vote(&mut self) {
        if self.rank.is_none() {
            return;
        }
        for founder in 0..self.founding.founders.len() {
            self.end_vote(founder);
            if Some(founder) == self.rank {
                continue;
            }
            if !self.votes.contains_key(&founder) {
                self.begin_vote(founder);
            }
            self.answer(founder);
        }
    }

    /// Ends a vote when the claim is over: because its owner stated so, or because the claimant was silent for too long.
    fn end_vote(&mut self, founder: usize) {
        let Some(vote) = self.votes.get(&founder) else { return };
        let over = if vote.to == self.seat {
            self.claims.get(&founder).is_none_or(|claim| claim.id != vote.claim)
        } else {
            let known = self.board.others.get(&vote.to).and_then(|other| other.claims.get(&founder));
            let said = known
                .is_some_and(|(claim, stage)| *claim > vote.claim || (*claim == vote.claim && *stage == Stage::Over));
            said || self.now >= vote.at.after(self.times.lease_over)
        };
        if over && let Some(vote) = self.votes.remove(&founder) {
            self.close(&Fact::Support { founder, to: vote.to, claim: vote.claim, vote: vote.id });
        }
    }

    fn begin_vote(&mut self, founder: usize) {
        let Some(name) = self.founding.founders.get(founder) else { return };
        let asks = |other: &Other| {
            let (claim, stage) = *other.claims.get(&founder)?;
            let fresh = other.is_fresh(self.now, self.times.loan);
            let may = stage == Stage::Holding || (stage == Stage::Asking && self.is_mature());
            (fresh && may).then_some((stage, other.heard, claim))
        };
        let of = |own: bool| {
            let asking = self.board.others.iter().filter(move |(seat, _)| (seat.node == *name) == own);
            asking.filter_map(|(seat, other)| Some((asks(other)?, seat, other.beat))).max()
        };
        // A holder goes before a claimant, and the founder itself before a process that stands in for it.
        let best = [of(true), of(false)].into_iter().flatten().rev().max_by_key(|((stage, ..), ..)| *stage);
        let Some(((_, _, claim), seat, beat)) = best else { return };
        // This vote does not answer readings from before it began.
        let (to, beat) = (seat.clone(), beat.saturating_sub(1));
        let vote = Vote { to, claim, id: self.number(), beat, at: self.now };
        self.votes.insert(founder, vote);
    }

    fn answer(&mut self, founder: usize) {
        let Some(vote) = self.votes.get_mut(&founder) else { return };
        let Some(other) = self.board.others.get(&vote.to).filter(|other| other.beat > vote.beat) else { return };
        (vote.beat, vote.at) = (other.beat, self.now);
        let fact = Fact::Support { founder, to: vote.to.clone(), claim: vote.claim, vote: vote.id };
        let beat = vote.beat;
        self.write(&fact, beat);
    }

    /// A new number for a claim or a vote of this process.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Claims this founder's own share and the shares of founders that are gone, and advances existing claims.
    pub(crate) fn claim(&mut self, release: &dyn Release) {
        let Some(rank) = self.rank else { return };
        for founder in 0..self.founding.founders.len() {
            if self.claims.contains_key(&founder) {
                self.pursue(founder, founder == rank);
                self.end_if_over(founder, release);
            } else if !self.leaving && self.now >= self.again.get(&founder).copied().unwrap_or_default() {
                let wanted = founder == rank || self.stands_in(founder, rank);
                let free = founder == rank || !self.votes.contains_key(&founder);
                if wanted && free && (founder == rank || self.is_mature()) {
                    self.begin_claim(founder, rank);
                }
            }
        }
    }

    /// Whether a founder is gone and this process belongs to the first of the remaining founders.
    fn stands_in(&self, founder: usize, rank: usize) -> bool {
        let gone = self.founding.stand_in && !self.is_around(founder);
        gone && (0..rank).all(|before| before == founder || !self.is_around(before))
    }

    fn begin_claim(&mut self, founder: usize, rank: usize) {
        let id = self.number();
        let claim = Claim { id, stage: Stage::Asking, since: self.now, confirm: None, releasing: false };
        self.claims.insert(founder, claim);
        self.write(&Fact::Claim { founder, claim: id }, Stage::Asking as u64);
        if founder != rank {
            let vote = Vote { to: self.seat.clone(), claim: id, id: self.number(), beat: 0, at: self.now };
            self.votes.insert(founder, vote);
        }
    }

    fn pursue(&mut self, founder: usize, own: bool) {
        let Some(claim) = self.claims.get(&founder) else { return };
        let (id, stage, since) = (claim.id, claim.stage, claim.since);
        match stage {
            Stage::Asking => {
                let pointless = !own && self.is_around(founder);
                if pointless || self.leaving || self.now >= since.after(self.times.lease_over * 3) {
                    return self.end_claim(founder);
                }
                self.confirm(founder, id);
            }
            Stage::Holding => {
                if (!own && self.is_around(founder)) || self.leaving {
                    self.release(founder);
                }
            }
            Stage::Over => {}
        }
    }

    /// Ends a claim that is over. Loans based on it have expired as well. This process announces the end when that is certain
    /// and nothing based on the claim is in use any more.
    fn end_if_over(&mut self, founder: usize, release: &dyn Release) {
        let over = self.claims.get(&founder).filter(|claim| claim.stage == Stage::Over).map(|claim| claim.since);
        let Some(since) = over.filter(|_| self.stands()) else { return };
        let closed = self.names.keys().all(|name| self.overdue(name, release) == 0);
        if closed || self.now >= since.after(self.closing()) {
            self.end_claim(founder);
        }
    }

    /// Whether claims that this process keeps cover everything that it has lent.
    fn stands(&self) -> bool {
        self.names.iter().all(|(name, named)| {
            let kept: u64 = self.lendable_claims().map(|founder| self.founded(founder, named.quota.whole)).sum();
            self.outstanding(name) <= kept
        })
    }

    /// Makes a claim held when all founders support it and still support it after the support was complete: then there was a
    /// moment at which no founder supported another claim.
    fn confirm(&mut self, founder: usize, id: u64) {
        let needed: Vec<usize> = self.voters(founder).filter(|voter| !self.is_forgotten(*voter)).collect();
        let nobody = self.voters(founder).next().is_none();
        if needed.is_empty() && !(nobody && self.is_mature()) {
            // If all founders that could answer are forgotten, no founder is left that could extend the claim.
            return;
        }
        let given: Vec<_> =
            needed.iter().filter_map(|voter| Some((*voter, self.best_support(*voter, founder, id)?))).collect();
        if given.len() < needed.len() {
            return;
        }
        let votes: BTreeMap<_, _> = given.iter().map(|(voter, by)| (*voter, (by.seat.clone(), by.vote))).collect();
        let heard = given.iter().map(|(_, by)| by.beat).min().unwrap_or(u64::MAX);
        let Some(claim) = self.claims.get_mut(&founder) else { return };
        match &claim.confirm {
            Some((from, supporters)) if *supporters == votes => {
                if heard >= *from {
                    claim.stage = Stage::Holding;
                    self.write(&Fact::Claim { founder, claim: id }, Stage::Holding as u64);
                }
            }
            _ => {
                claim.confirm = Some((self.heartbeat + 1, votes));
                self.publish_heartbeat();
            }
        }
    }

    fn is_forgotten(&self, founder: usize) -> bool {
        self.founding.founders.get(founder).is_some_and(|node| self.forgotten.contains(node))
    }

    /// Ends what has expired. A claim without an answer for too long is over permanently.
    pub(crate) fn lapse(&mut self) {
        self.lapse_terms();
        let held: Vec<usize> = self.held_claims().map(|(founder, _)| founder).collect();
        let lost =
            self.claims.iter().filter(|(founder, claim)| claim.stage == Stage::Holding && !held.contains(founder));
        for founder in lost.map(|(founder, _)| *founder).collect::<Vec<_>>() {
            if let Some(claim) = self.claims.get_mut(&founder) {
                (claim.stage, claim.since) = (Stage::Over, self.now);
            }
        }
    }

    /// Begins a new epoch if this process holds other claims than before. Limits that rest depend on the epoch.
    pub(super) fn note_epoch(&mut self) {
        let held: Vec<_> =
            self.held_claims().filter_map(|(founder, _)| Some((founder, self.claims.get(&founder)?.id))).collect();
        if held != self.epoch.claims {
            self.epoch = Epoch { number: self.epoch.number + 1, since: self.now, claims: held };
        }
    }

    /// Gives a claim up as soon as no loan depends on it.
    fn release(&mut self, founder: usize) {
        if let Some(claim) = self.claims.get_mut(&founder).filter(|claim| !claim.releasing) {
            claim.releasing = true;
            self.end_terms();
        }
        if self.stands()
            && let Some(claim) = self.claims.get_mut(&founder)
        {
            (claim.stage, claim.since) = (Stage::Over, self.now);
        }
    }

    /// The held claims that this process intends to keep.
    pub(crate) fn lendable_claims(&self) -> impl Iterator<Item = usize> + '_ {
        let keeps = |founder: &usize| self.claims.get(founder).is_some_and(|claim| !claim.releasing);
        self.held_claims().map(|(founder, _)| founder).filter(keeps)
    }

    fn end_claim(&mut self, founder: usize) {
        let Some(claim) = self.claims.remove(&founder) else { return };
        let fact = Fact::Claim { founder, claim: claim.id };
        self.write(&fact, Stage::Over as u64);
        self.close(&fact);
        self.again.insert(founder, self.now.after(self.times.loan));
        self.end_vote(founder);
    }
}
