//! A verification in rounds: copies that lag get time to catch up, and counts that change meanwhile are no fault.
//!
//! Each round probes all peers. A copy counts as compared when, in one of the rounds, it was at its owner's version with the
//! owner's fingerprint. Later counts are not part of the verification.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_schemas::{Actor, NodeName, StructureName};

use crate::replica::Replica;
use crate::replica::verify::found::{Fault, Finding, Verification};
use crate::replica::verify::walk::{SLICE, Subject, Walk};
use crate::time::{Now, Time};

/// The pause before members that lag are asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a round waits for members that do not answer before the others are asked again.
const ROUND: Duration = Duration::from_secs(1);

/// The extra time for a node that has not yet read all answers at the deadline.
const GRACE: Duration = Duration::from_secs(5);

/// A copy: its structure, its actor, and the member that holds it.
type Copy = (StructureName, Actor, NodeName);

/// The messages that have arrived and that a node has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// There are none.
    Empty,
    /// There are some.
    Waiting,
}

/// A verification in progress. Call [`Verifier::poll`] after every event, and no later than [`Verifier::poll_timeout`] says.
///
/// A call compares a bounded number of copies. The first round compares all of them. A later round compares those that are not
/// compared yet, and all again only if other members have answered.
#[derive(Debug)]
pub struct Verifier {
    /// The first probe, and that of this round.
    first: u64,
    nonce: u64,
    round_began: Time,
    deadline: Time,
    /// The deadline was extended.
    extended: bool,
    /// The time when the next round begins.
    again: Option<Time>,
    /// The comparison of this round, once it has begun.
    walk: Option<Walk>,
    /// The actors and copies that the last complete pass compared.
    compared: (usize, usize),
    /// The nodes whose copies were compared, for each earlier round.
    rounds: BTreeSet<BTreeSet<NodeName>>,
    /// Copies that have not been compared yet, as of the last probe, with their owner's version at the first probe.
    open: BTreeMap<Copy, Finding>,
}

impl Verifier {
    /// Begins to compare. The members have the time `patience` to answer and to catch up.
    pub fn new(replica: &mut Replica, now: Now, patience: Duration) -> Self {
        let nonce = replica.probe(now);
        Self {
            first: nonce,
            nonce,
            round_began: now.mono,
            deadline: now.mono.after(patience),
            extended: false,
            again: None,
            walk: None,
            compared: (0, 0),
            rounds: BTreeSet::new(),
            open: BTreeMap::new(),
        }
    }

    /// When to call [`Verifier::poll`] next, if nothing happens before.
    pub fn poll_timeout(&self) -> Time {
        if self.walk.is_some() {
            return Time(0);
        }
        self.again.unwrap_or(self.round_began.after(ROUND)).min(self.deadline)
    }

    /// The result, once everything is equal or `patience` is over. `linked` says which members should have a link to this node.
    /// While there is a backlog, a silent member is not at fault.
    pub fn poll(
        &mut self,
        replica: &mut Replica,
        now: Now,
        linked: impl Fn(&NodeName) -> bool,
        backlog: Backlog,
    ) -> Option<Verification> {
        let ended = now.mono >= self.deadline;
        if ended && backlog == Backlog::Waiting && !self.extended {
            self.extended = true;
            self.deadline = now.mono.after(GRACE);
            return None;
        }
        if self.walk.is_none() && !self.is_due(replica, now) {
            return None;
        }
        let mut walk = self.walk.take().unwrap_or_else(|| self.begin_pass(replica));
        if !walk.step(replica, SLICE) {
            self.walk = Some(walk);
            return None;
        }
        let mut found = self.finish_pass(replica, walk);
        found.expect_links(linked);
        let hopeless = found.dead.len() + usize::from(!found.mismatched.is_empty()) + found.unheld.len() > 0;
        let waits = [&found.silent, &found.late, &found.unlinked].iter().any(|members| !members.is_empty());
        if ended || found.converged() || (hopeless && !waits && found.findings.is_empty()) {
            if backlog == Backlog::Waiting {
                found.late.append(&mut found.silent);
                found.late.sort();
            }
            return Some(found);
        }
        // Each round makes all members list everything, so the rounds leave as much time as they take.
        let pause = PAUSE.max(now.mono.since(self.round_began));
        self.again = Some(now.mono.after(pause).min(self.deadline));
        None
    }

    /// Whether to begin the comparison of this round. Begins the next round if it is time.
    fn is_due(&mut self, replica: &mut Replica, now: Now) -> bool {
        let ended = now.mono >= self.deadline;
        let Some(again) = self.again.filter(|_| !ended) else {
            let ends = self.round_began.after(ROUND);
            return ended || now.mono >= ends || replica.all_answered(self.nonce);
        };
        if now.mono >= again {
            (self.nonce, self.again, self.round_began) = (replica.probe(now), None, now.mono);
        }
        false
    }

    /// Begins to compare what is not compared yet.
    fn begin_pass(&self, replica: &Replica) -> Walk {
        let walk = Walk::new(replica, self.nonce, Subject::All);
        let answered = walk.compared(replica);
        if !self.rounds.iter().any(|round| answered.is_subset(round)) {
            return walk;
        }
        let mut open: BTreeMap<_, BTreeSet<Actor>> = BTreeMap::new();
        for (structure, actor, _) in self.open.keys() {
            open.entry(structure.id()).or_default().insert(actor.clone());
        }
        Walk::new(replica, self.nonce, Subject::Some(open))
    }

    /// The result of this round.
    fn finish_pass(&mut self, replica: &Replica, walk: Walk) -> Verification {
        let (answered, is_complete) = (walk.compared(replica), walk.is_complete());
        let mut found = replica.with_members(self.first, walk.finish());
        if is_complete {
            self.compared = (found.actors, found.copies);
        } else {
            (found.actors, found.copies) = self.compared;
        }
        self.judge(replica, answered, &mut found);
        // The link of a member may have been replaced during the pass. The member has answered over the new link, and its copies
        // are not compared yet.
        let is_compared = |member: &NodeName| self.rounds.iter().any(|round| round.contains(member));
        let (members, open): (Vec<_>, Vec<_>) = found.members.into_iter().partition(is_compared);
        found.late.extend(open);
        found.late.sort();
        Verification { members, ..found }
    }

    /// Removes findings about copies that were compared in an earlier round, and adds copies that could not be compared in this
    /// round. Distinguishes copies that lag from copies that merely change.
    fn judge(&mut self, replica: &Replica, answered: BTreeSet<NodeName>, found: &mut Verification) {
        // If an owner has no link, its copies are compared with each other.
        let compared = |round: &BTreeSet<NodeName>, of: &Finding| {
            let owner = &of.actor.node;
            round.contains(&of.member) && (round.contains(owner) || !replica.is_linked(owner))
        };
        let (rounds, known) = (&self.rounds, &self.open);
        found.findings.retain_mut(|finding| {
            if finding.fault == Fault::Differs {
                return true;
            }
            let first = known.get(&copy(finding)).map(|first| first.head);
            if first.is_none() && rounds.iter().any(|round| compared(round, finding)) {
                return false;
            }
            if finding.applied >= first.unwrap_or(finding.head) {
                finding.fault = Fault::Changes;
            }
            true
        });
        let mut open: BTreeMap<Copy, Finding> = BTreeMap::new();
        for finding in &found.findings {
            let first = known.get(&copy(finding)).map_or(finding.head, |first| first.head);
            open.insert(copy(finding), Finding { head: first, ..finding.clone() });
        }
        let missed = known.iter().filter(|(copy, first)| !compared(&answered, first) && !open.contains_key(*copy));
        let missed: Vec<_> = missed.map(|(copy, first)| (copy.clone(), first.clone())).collect();
        found.findings.extend(missed.iter().map(|(_, finding)| finding.clone()));
        open.extend(missed);
        self.open = open;
        self.rounds.insert(answered);
    }
}

fn copy(finding: &Finding) -> Copy {
    (finding.structure.clone(), finding.actor.clone(), finding.member.clone())
}
