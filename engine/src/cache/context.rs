//! Causal contexts: which writes of a cache a replica has taken in.

use std::collections::BTreeMap;

use tallymesh_schemas::message::CacheContext;
use tallymesh_schemas::{Actor, Incarnation, NodeName, bounds};

/// The most runs that members have room for. The other places are for runs of this node, so that it never reports more than a
/// message may name.
pub(crate) const PLACES: usize = bounds::ACTORS - 16;

/// A version vector over the runs of the nodes. A run numbers its writes of a cache from 1.
///
/// For nodes that have restarted often it names only the runs that some node may still miss: see [`Context::end`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// The last write of each run that was taken in, with all earlier ones. No number is zero, and no run is in `ended`.
    runs: BTreeMap<Actor, u64>,
    /// All writes of a node's runs before this one were taken in.
    ended: BTreeMap<NodeName, Incarnation>,
}

impl Context {
    /// The number up to which the writes of a run were taken in; `u64::MAX` for a run that has ended.
    pub(crate) fn reached(&self, run: &Actor) -> u64 {
        if self.has_ended(run) { u64::MAX } else { self.runs.get(run).copied().unwrap_or(0) }
    }

    /// Whether a write was taken in.
    pub(crate) fn covers(&self, run: &Actor, number: u64) -> bool {
        number <= self.reached(run)
    }

    fn has_ended(&self, run: &Actor) -> bool {
        self.ended.get(&run.node).is_some_and(|first| run.incarnation < *first)
    }

    /// Adds the writes of a run up to a number.
    pub(crate) fn raise(&mut self, run: &Actor, number: u64) {
        if number == 0 || self.has_ended(run) {
            return;
        }
        match self.runs.get_mut(run) {
            Some(reached) => *reached = number.max(*reached),
            None => drop(self.runs.insert(run.clone(), number)),
        }
    }

    /// Adds the writes of a run that another member names, if the context names fewer than `most` runs: one that names ever new
    /// runs must not use up all memory. Returns whether there was room.
    pub(crate) fn admit(&mut self, run: &Actor, number: u64, most: usize) -> bool {
        let is_new = number > 0 && !self.has_ended(run) && !self.runs.contains_key(run);
        if is_new && !self.has_room(&run.node, most) {
            return false;
        }
        self.raise(run, number);
        true
    }

    /// Whether another run of a node finds room. Few runs of each node find room when half of the places are taken.
    fn has_room(&self, node: &NodeName, most: usize) -> bool {
        let all = Actor::new(node.clone(), Incarnation(0))..=Actor::new(node.clone(), Incarnation(u64::MAX));
        let is_contended = self.runs.len() >= most / 2;
        self.runs.len() < most && !(is_contended && self.runs.range(all).nth(bounds::RUNS_CONTENDED - 1).is_some())
    }

    /// Adds all writes of a node's runs before `first`, and names these runs no longer.
    pub(crate) fn end(&mut self, node: &NodeName, first: Incarnation) {
        let ended = self.ended.entry(node.clone()).or_insert(first);
        *ended = first.max(*ended);
        let (from, to) = (Actor::new(node.clone(), Incarnation(0)), Actor::new(node.clone(), *ended));
        while let Some(run) = self.runs.range(from.clone()..to.clone()).next().map(|(run, _)| run.clone()) {
            self.runs.remove(&run);
        }
    }

    /// Takes back the writes of a run above a number.
    pub(crate) fn lower(&mut self, run: &Actor, number: u64) {
        match self.runs.get_mut(run) {
            Some(reached) if number > 0 => *reached = number.min(*reached),
            _ => drop(self.runs.remove(run)),
        }
    }

    /// Adds everything of another context.
    pub(crate) fn join(&mut self, other: &Self) {
        other.ended.iter().for_each(|(node, first)| self.end(node, *first));
        other.runs.iter().for_each(|(run, number)| self.raise(run, *number));
    }

    /// Keeps only what another context also has.
    pub(crate) fn meet(&mut self, other: &Self) {
        let ours = std::mem::take(self);
        for (run, number) in &ours.runs {
            self.raise(run, other.reached(run).min(*number));
        }
        for (run, number) in &other.runs {
            self.raise(run, ours.reached(run).min(*number));
        }
        for (node, first) in &ours.ended {
            if let Some(other) = other.ended.get(node) {
                self.end(node, *first.min(other));
            }
        }
    }

    /// Whether another context has everything of this one.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let within = |(run, number): (&Actor, &u64)| other.covers(run, *number);
        self.runs.iter().all(within)
            && self.ended.iter().all(|(node, first)| other.ended.get(node).is_some_and(|other| other >= first))
    }

    /// The runs that are named, in order, each with the number of its last write that was taken in.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&Actor, u64)> {
        self.runs.iter().map(|(run, number)| (run, *number))
    }

    /// The nodes with runs that have ended, and the first run of each that has not.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (&NodeName, Incarnation)> {
        self.ended.iter().map(|(node, first)| (node, *first))
    }

    /// The first run of a node that has not ended.
    pub(crate) fn first_of(&self, node: &NodeName) -> Incarnation {
        self.ended.get(node).copied().unwrap_or(Incarnation(0))
    }

    /// Number of runs and nodes that it names.
    pub(crate) fn len(&self) -> usize {
        self.runs.len() + self.ended.len()
    }

    /// What this context has in addition to another one. A part of it is stated in whole: a run up to its last write.
    pub(crate) fn beyond(&self, other: &Self) -> CacheContext {
        let runs = self.runs.iter().filter(|(run, number)| !other.covers(run, **number));
        let ended = self.ended.iter().filter(|(node, first)| other.first_of(node) < **first);
        CacheContext {
            runs: runs.map(|(run, number)| (run.clone(), *number)).collect(),
            ended: ended.map(|(node, first)| (node.clone(), *first)).collect(),
        }
    }

    /// Adds everything of a context that a peer or the disk states, as far as there is room. Returns how much found none.
    pub(crate) fn join_stated(&mut self, stated: &CacheContext) -> u64 {
        let mut refused = 0;
        for (node, first) in &stated.ended {
            if self.ended.len() < bounds::NODES || self.ended.contains_key(node) {
                self.end(node, *first);
            } else {
                refused += 1;
            }
        }
        refused + stated.runs.iter().map(|(run, number)| u64::from(!self.admit(run, *number, PLACES))).sum::<u64>()
    }
}

impl From<&CacheContext> for Context {
    fn from(stated: &CacheContext) -> Self {
        let mut context = Self::default();
        context.join_stated(stated);
        context
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(node: u8, incarnation: u64) -> Actor {
        Actor::new(NodeName::new(&format!("n{node}")).unwrap(), Incarnation(incarnation))
    }

    fn contexts() -> impl Strategy<Value = Context> {
        let runs = prop::collection::vec((0u8..3, 1u64..4, 0u64..4), 0..6);
        let ended = prop::collection::vec((0u8..3, 1u64..5), 0..3);
        (runs, ended).prop_map(|(runs, ended)| {
            let mut context = Context::default();
            ended.iter().for_each(|(node, first)| context.end(&run(*node, 0).node, Incarnation(*first)));
            runs.iter().for_each(|(node, incarnation, number)| context.raise(&run(*node, *incarnation), *number));
            context
        })
    }

    /// Every write that may occur.
    fn writes() -> impl Iterator<Item = (Actor, u64)> {
        (0..3).flat_map(|node| (1..5).flat_map(move |incarnation| (1..6).map(move |n| (run(node, incarnation), n))))
    }

    /// I6. Another member names ever new runs of its own: the context takes some of them, and runs of other nodes as well.
    #[test]
    fn a_member_that_names_many_runs_leaves_room_for_others() {
        let mut context = Context::default();
        for message in 0..10 {
            let runs = (0..bounds::ACTORS as u64).map(|n| (run(0, 1 + message * 10_000 + n), 1)).collect();
            let ended =
                (0..bounds::NODES).map(|n| (NodeName::new(&format!("made-up-{message}-{n}")).unwrap(), Incarnation(2)));
            context.join_stated(&CacheContext { runs, ended: ended.collect() });
        }
        assert!(context.len() <= bounds::ACTORS + bounds::NODES, "{}", context.len());
        assert!(context.admit(&run(1, 1), 5, PLACES));
        assert!(context.covers(&run(1, 1), 5));
    }

    proptest! {
        #[test]
        fn contexts_are_sets_of_writes(a in contexts(), b in contexts()) {
            let (mut union, mut common) = (a.clone(), a.clone());
            union.join(&b);
            common.meet(&b);
            let mut sent = b.clone();
            sent.join_stated(&a.beyond(&b));
            prop_assert_eq!(&sent, &union);
            for (run, number) in writes() {
                let (in_a, in_b) = (a.covers(&run, number), b.covers(&run, number));
                prop_assert_eq!(union.covers(&run, number), in_a || in_b);
                prop_assert_eq!(common.covers(&run, number), in_a && in_b);
            }
            prop_assert!(a.is_within(&union) && b.is_within(&union));
            prop_assert!(common.is_within(&a) && common.is_within(&b));
            if a.is_within(&b) {
                prop_assert!(writes().all(|(run, number)| !a.covers(&run, number) || b.covers(&run, number)));
            }
        }
    }
}
