//! The bounds that a replica has reached, and what it does not hold for that reason (I14).
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::{Actor, NodeName, StructureId, bounds};

use crate::replica::Replica;
use crate::replica::stream::StreamId;

/// Runs and nodes that other nodes reported and this node does not hold, at most [`bounds::UNHELD`] of each.
#[derive(Debug, Default)]
pub(super) struct Unheld {
    /// Runs without a place in a structure.
    pub(super) parts: BTreeSet<StreamId>,
    /// Nodes without a place, each with the node that reported it last.
    pub(super) nodes: BTreeMap<NodeName, NodeName>,
    /// There are more than these lists hold.
    pub(super) more: bool,
}

impl Unheld {
    /// Records a run that has no place in a structure.
    pub(super) fn part(&mut self, part: StreamId) {
        if self.parts.len() < bounds::UNHELD || self.parts.contains(&part) {
            self.parts.insert(part);
        } else {
            self.more = true;
        }
    }

    /// Records a node, reported by `teller`, that has no place.
    pub(super) fn node(&mut self, node: &NodeName, teller: &NodeName) {
        if self.nodes.len() < bounds::UNHELD || self.nodes.contains_key(node) {
            self.nodes.insert(node.clone(), teller.clone());
        } else {
            self.more = true;
        }
    }

    /// An operator forgets a node: removes the nodes that only it reported. Unlisted ones are added when other nodes report
    /// them again.
    pub(super) fn forget_reporter(&mut self, node: &NodeName) {
        let before = self.nodes.len();
        self.nodes.retain(|_, teller| teller != node);
        self.more &= self.nodes.len() == before;
    }

    /// Removes the streams that are `gone`. Unlisted ones are added when peers report them again.
    pub(super) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        let before = self.parts.len();
        self.parts.retain(|part| !gone(part));
        self.more &= self.parts.len() == before;
    }
}

impl Replica {
    /// The bounds reached since the start: those of the replica, and those of each structure. All windows of a series count as
    /// one place.
    pub fn bounds(&self) -> Vec<bound::Report> {
        let mut reports = self.tally.reports(limit);
        for held in self.structures.values() {
            let name = held.structure.spec().name.as_str();
            let place = name.split_once('@').map_or(name, |(series, _)| series);
            for report in held.structure.tally.reports(limit) {
                let known =
                    |other: &&mut bound::Report| other.bound == report.bound && other.place.as_deref() == Some(place);
                match reports.iter_mut().find(known) {
                    Some(other) => other.times = other.times.saturating_add(report.times),
                    None => reports.push(bound::Report { place: Some(place.to_owned()), ..report }),
                }
            }
        }
        reports
    }

    /// A peer reports a run that has no place here.
    pub(super) fn has_no_place(&mut self, id: StructureId, actor: &Actor) {
        self.unheld.part((id, actor.clone()));
    }

    /// `teller` reports a node that has no place here.
    pub(super) fn note_unheld_node(&mut self, node: &NodeName, teller: &NodeName) {
        self.tally.reached(Bound::Nodes);
        self.unheld.node(node, teller);
    }
}

fn limit(bound: Bound) -> u64 {
    let limit = match bound {
        Bound::Actors => bounds::ACTORS,
        Bound::Nodes => bounds::NODES,
        Bound::Rows => bounds::ROWS_PER_ACTOR as usize,
        Bound::Tombstones => bounds::TOMBSTONES,
        Bound::SeenEntries => bounds::SEEN_ENTRIES,
        Bound::Wants => bounds::WANTS,
        Bound::RunQuestions => bounds::RUN_QUESTIONS as usize,
        Bound::Events => bounds::EVENTS,
        // Other components count these.
        _ => 0,
    };
    limit as u64
}
