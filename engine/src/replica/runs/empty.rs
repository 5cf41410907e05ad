//! Ended runs of which this node holds nothing.
//!
//! Rows of events outlive their run. If a run has ended and a structure holds no rows of it, then only another node can have rows
//! of it. That node lists the run in its digests. So this node keeps nothing about the run: no copy, no entry in digests, and no
//! bookkeeping.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};

use tallymesh_schemas::message::DigestEntry;
use tallymesh_schemas::{Incarnation, NodeName, StructureId, Version};

use crate::canary::{self, Canary};
use crate::replica::Replica;
use crate::replica::runs::Runs;
use crate::replica::runs::life::RunStatus;
use crate::replica::stream::StreamId;

/// The most empty copies that one sweep looks at.
const SWEPT: usize = 256;

impl Replica {
    /// Whether a peer's entry is about an ended run of which neither the peer nor this node has anything. This node then admits
    /// no copy of it.
    pub(crate) fn is_empty_run(&self, id: StructureId, status: RunStatus, entry: &DigestEntry) -> bool {
        let nothing_there = status == RunStatus::Earlier && entry.applied == Version::ZERO && empty_runs_are_dropped();
        nothing_there && self.structures.get(&id).is_some_and(|held| !held.structure.holds(&entry.actor))
    }

    /// Some runs of a node have ended: drops the copies that hold nothing from the structures that keep the rows of ended runs.
    /// Returns what it dropped.
    pub(super) fn drop_empty_runs(
        &mut self,
        node: &NodeName,
        runs: &RangeInclusive<Incarnation>,
    ) -> BTreeSet<StreamId> {
        let mut empty = Vec::new();
        for (id, held) in self.structures.iter().filter(|(_, held)| held.structure.keeps_runs()) {
            empty.extend(held.structure.empty_runs(node, runs).into_iter().map(|actor| (*id, actor)));
        }
        empty.into_iter().filter(|part| empty_runs_are_dropped() && self.drop_if_empty(part)).collect()
    }

    /// Drops the copy of an ended run if it holds nothing and no linked peer has more. Returns whether it did. A copy that a peer
    /// can fill is looked at again later.
    fn drop_if_empty(&mut self, part: &StreamId) -> bool {
        let (id, actor) = part;
        let Some(held) = self.structures.get(id) else { return false };
        let only = actor.incarnation..=actor.incarnation;
        if held.structure.empty_runs(&actor.node, &only).is_empty() {
            return false;
        }
        if self.peers.links.values().any(|link| link.peer_applied(*id, actor) > Version::ZERO) {
            self.runs.unfilled.insert(part.clone());
            return false;
        }
        let _dropped = held.structure.drop_runs(&actor.node, &only);
        true
    }

    /// Drops copies of ended runs that no peer can fill any more.
    pub(crate) fn sweep_unfilled(&mut self) {
        let parts = self.runs.take_unfilled(SWEPT);
        let gone: BTreeSet<_> = parts.into_iter().filter(|part| self.drop_if_empty(part)).collect();
        if !gone.is_empty() {
            self.forget_streams(|part| gone.contains(part));
        }
    }
}

impl Runs {
    /// Whether to leave an entry out of digests because it is about an ended run of which there is nothing here.
    pub(super) fn is_about_nothing(&self, entry: &DigestEntry) -> bool {
        entry.applied == Version::ZERO && self.is_over(&entry.actor) && empty_runs_are_dropped()
    }

    /// The next copies of ended runs that were empty, at most `most` of them. Later calls return those behind them first.
    fn take_unfilled(&mut self, most: usize) -> Vec<StreamId> {
        let behind = self.unfilled_swept.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = self.unfilled.range((behind, Bound::Unbounded)).take(most).cloned().collect();
        if next.len() == most {
            self.unfilled_swept = next.last().cloned();
        }
        for part in &next {
            self.unfilled.remove(part);
        }
        next
    }
}

/// Whether an ended run of which nothing is here is dropped.
fn empty_runs_are_dropped() -> bool {
    !canary::broken(Canary::EmptyRunsKept)
}
