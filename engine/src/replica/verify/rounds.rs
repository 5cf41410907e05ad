//! A verification in rounds: copies that lag get time to catch up, and counts that change meanwhile are no fault.
//!
//! Each round probes all peers. A copy counts as compared when, in one of the rounds, it was at its owner's version with the
//! owner's fingerprint. Later counts are not part of the verification.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_schemas::{Actor, NodeName, StructureName};

use crate::replica::Replica;
use crate::replica::verify::found::{Fault, Finding, Verification};
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
#[derive(Debug)]
pub struct Verifier {
    /// The first probe, and that of this round.
    first: u64,
    nonce: u64,
    round_ends: Time,
    deadline: Time,
    /// The deadline was extended.
    extended: bool,
    /// The time when the next round begins.
    again: Option<Time>,
    /// The nodes that had answered at the end of each earlier round.
    rounds: BTreeSet<BTreeSet<NodeName>>,
    /// Copies that have not been compared yet, as of the last probe, with their owner's version at the first probe.
    open: BTreeMap<Copy, Finding>,
}

impl Verifier {
    /// Begins to compare. The members have the time `patience` to answer and to catch up.
    pub fn new(replica: &mut Replica, now: Now, patience: Duration) -> Self {
        let nonce = replica.probe(now);
        let (round_ends, deadline) = (now.mono.after(ROUND), now.mono.after(patience));
        let (rounds, open) = (BTreeSet::new(), BTreeMap::new());
        Self { first: nonce, nonce, round_ends, deadline, extended: false, again: None, rounds, open }
    }

    /// When to call [`Verifier::poll`] next, if nothing happens before.
    pub fn poll_timeout(&self) -> Time {
        self.again.unwrap_or(self.round_ends).min(self.deadline)
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
        match self.again {
            Some(again) if !ended && now.mono < again => return None,
            Some(_) if !ended => {
                (self.nonce, self.again, self.round_ends) = (replica.probe(now), None, now.mono.after(ROUND));
                return None;
            }
            None if !ended && now.mono < self.round_ends && !replica.all_answered(self.nonce) => return None,
            _ => {}
        }
        let mut found = replica.verification_since(self.first, self.nonce);
        found.expect_links(linked);
        self.judge(replica, &mut found);
        let hopeless = found.dead.len() + usize::from(!found.mismatched.is_empty()) + found.unheld.len() > 0;
        let waits = [&found.silent, &found.late, &found.unlinked].iter().any(|members| !members.is_empty());
        if ended || found.converged() || (hopeless && !waits && found.findings.is_empty()) {
            if backlog == Backlog::Waiting {
                found.late.append(&mut found.silent);
                found.late.sort();
            }
            return Some(found);
        }
        self.again = Some(now.mono.after(PAUSE).min(self.deadline));
        None
    }

    /// Removes findings about copies that were compared in an earlier round, and adds copies that could not be compared in this
    /// round. Distinguishes copies that lag from copies that merely change.
    fn judge(&mut self, replica: &Replica, found: &mut Verification) {
        let answered = replica.answered(self.nonce);
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
