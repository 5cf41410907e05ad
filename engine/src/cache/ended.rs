//! Runs that have ended: a replica stops naming them in its context.
//!
//! A replica ends runs at the end of a round, when every known node has taken in the same writes of them. It then states these
//! runs with their last writes, until all known nodes have ended them too. A node that has all those writes ends them as well.
//! A node that does not comes to it by a full walk: that sends all entries, whichever run wrote them.

use std::collections::BTreeMap;

use tallymesh_schemas::message::CacheEnding;
use tallymesh_schemas::{Actor, Incarnation, NodeName};

use crate::cache::collect::Round;
use crate::cache::ending::Ending;
use crate::cache::map::CacheMap;

impl CacheMap {
    /// Stops naming the runs of a node that have ended, if every known node has taken in the same writes of them.
    pub(crate) fn end_runs(&mut self, round: &Round, has_ended: impl Fn(&Actor) -> bool) {
        let mut ended: BTreeMap<NodeName, Incarnation> = BTreeMap::new();
        let mut held_up: Option<&NodeName> = None;
        for (run, number) in self.seen.runs().filter(|(run, _)| **run != self.me) {
            match run.incarnation.next() {
                Ok(next) if round.is_same(run, number) && has_ended(run) && held_up != Some(&run.node) => {
                    ended.insert(run.node.clone(), next);
                }
                _ => held_up = Some(&run.node),
            }
        }
        ended.iter().for_each(|(node, first)| self.end(node, *first));
        // A node that has not ended these runs yet still compares what it has of them with what was collected.
        round.least.ended().for_each(|(node, first)| self.collected.end(node, first));
        self.endings.retain(|node, ending| round.least.first_of(node) < ending.first());
    }

    /// Ends the runs of a node before `first`. This replica has the last writes of all of them.
    fn end(&mut self, node: &NodeName, first: Incarnation) {
        let was = self.seen.first_of(node);
        if first <= was {
            return;
        }
        let is_ending = |run: &Actor| run.node == *node && run.incarnation < first;
        self.take_over(&self.unmarked(is_ending));
        let ending = self.endings.entry(node.clone()).or_insert_with(|| Ending::new(was));
        let theirs = self.seen.runs().filter(|(run, _)| run.node == *node && run.incarnation < first);
        ending.extend(first, theirs.map(|(run, number)| (run.incarnation, number)));
        self.seen.end(node, first);
    }

    /// What this replica states of the runs that it has ended.
    pub(crate) fn endings(&self) -> Vec<CacheEnding> {
        self.endings.iter().map(|(node, ending)| ending.stated(node)).collect()
    }

    /// A peer has ended runs. This replica does so too if it has all their writes.
    pub(crate) fn end_too(&mut self, ending: &CacheEnding, has_ended: impl Fn(&Actor) -> bool) {
        let run = |incarnation| Actor::new(ending.node.clone(), incarnation);
        let has_all = ending.last.iter().all(|(incarnation, number)| self.seen.covers(&run(*incarnation), *number));
        let last = Incarnation(ending.first.0.saturating_sub(1));
        if has_all && self.seen.first_of(&ending.node) >= ending.from && has_ended(&run(last)) {
            self.end(&ending.node, ending.first);
        }
    }

    /// A full walk of a peer has sent all entries: this replica need not name the runs that the peer does not name.
    pub(crate) fn end_after_walk(&mut self, ended: &[(NodeName, Incarnation)], has_ended: impl Fn(&Actor) -> bool) {
        for (node, first) in ended {
            let last = Incarnation(first.0.saturating_sub(1));
            if *first > self.seen.first_of(node) && has_ended(&Actor::new(node.clone(), last)) {
                self.seen.end(node, *first);
                // It does not know the last writes, so it cannot state them.
                self.endings.remove(node);
            }
        }
    }
}

impl Round {
    /// Whether all nodes have taken in the writes of a run up to a number, and no further ones.
    fn is_same(&self, run: &Actor, number: u64) -> bool {
        let most = self.most.reached(run);
        self.least.reached(run) == number && (most == number || most == u64::MAX)
    }
}
