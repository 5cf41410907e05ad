//! The rows of a structure by actor, and the aggregates derived from them, behind one lock. The entry points are
//! [`Ledger::commit`] for this node's own rows and [`Ledger::apply`] for all other rows.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Actor, Version};

use crate::counter::actors::Actors;
use crate::counter::below::Debts;
use crate::counter::journal::{Head, Journal, Mark};
use crate::counter::views::Views;
use crate::index::Index;
use crate::keyspace::cells::Cells;
use crate::rows::actor_rows::{ActorRows, Editions};
use crate::rows::writer::OwnRowWriter;
use crate::shape::Shape;
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) own: OwnRowWriter,
    pub(super) actors: Actors,
    pub(super) views: Views,
    pub(super) journal: Journal,
    pub(super) editions: Editions,
    /// This node is leaving: its gauges are zero from now on, whatever the cells say.
    pub(super) closed: bool,
}

impl Ledger {
    pub(crate) fn new(shape: Shape, actor: Actor, cells: Arc<Cells>) -> Self {
        let mut actors = Actors::default();
        actors.insert(actor.clone(), ActorRows::ours());
        Self {
            own: OwnRowWriter::default(),
            actors,
            views: Views::new(shape, actor, cells),
            journal: Journal::default(),
            editions: Editions::default(),
            closed: false,
        }
    }

    /// This node's actor.
    pub(crate) fn actor(&self) -> &Actor {
        &self.views.actor
    }

    /// The rows of all actors.
    pub(crate) fn actors(&self) -> &Actors {
        &self.actors
    }

    pub(crate) fn actors_mut(&mut self) -> &mut Actors {
        &mut self.actors
    }

    /// The aggregates.
    pub(crate) fn views(&self) -> &Views {
        &self.views
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.views.cells
    }

    pub(crate) fn index(&self) -> &Index {
        &self.views.index
    }

    /// This node's own rows with their writer and the aggregates.
    pub(super) fn own_parts(&mut self) -> Option<(&mut OwnRowWriter, &mut ActorRows, &mut Views)> {
        Some((&mut self.own, self.actors.get_mut(&self.views.actor)?, &mut self.views))
    }

    /// This node's own rows.
    pub(super) fn own_rows(&self) -> Option<&ActorRows> {
        self.actors.get(&self.views.actor)
    }

    /// By how much other actors' rows are below zero, readable without the ledger lock.
    pub(crate) fn debts(&self) -> &Arc<Debts> {
        self.views.below.debts()
    }

    /// The journal of changed actors, including this node's own rows.
    pub(crate) fn journal(&mut self) -> &mut Journal {
        if let Some(own) = self.actors.get(&self.views.actor) {
            let head = Head { version: own.applied, fingerprint: own.fingerprint() };
            self.journal.note_own(&self.views.actor, head);
        }
        &mut self.journal
    }

    /// The actors that have changed behind a mark.
    pub(crate) fn changed_behind(&self, mark: Mark) -> impl Iterator<Item = (Mark, &Actor)> {
        self.journal.behind(mark)
    }

    /// How long ago this copy of an actor's rows was last confirmed as current; `None` when it never was, or when rows are
    /// still missing.
    pub(crate) fn age(&self, actor: &Actor, rows: &ActorRows, now: Time) -> Option<Duration> {
        if actor == self.actor() {
            return Some(Duration::ZERO);
        }
        (rows.confirmed > Time(0) && rows.is_complete()).then(|| now.since(rows.confirmed))
    }

    /// The version up to which this copy of an actor's rows has everything that the owner had at one moment.
    pub(crate) fn complete_upto(&self, actor: &Actor, rows: &ActorRows) -> Version {
        if actor == self.actor() { rows.applied } else { rows.keys_complete.max(rows.complete).min(rows.applied) }
    }

    /// Notes that this replica's knowledge of another actor has changed.
    pub(crate) fn note(&mut self, actor: &Actor) {
        self.journal.note(actor);
    }

    /// The highest version of this node's own rows.
    pub(crate) fn head(&self) -> Version {
        self.own_rows().map_or(Version::ZERO, |own| own.applied)
    }

    /// How many own rows found no free slot since the last call.
    pub(crate) fn take_rows_without_room(&mut self) -> u64 {
        self.own.take_without_room()
    }

    /// Whether any key was cleared, so that a cell's own totals alone do not give its count.
    pub(crate) fn has_resets(&self) -> bool {
        !self.views.resets.is_empty()
    }

    /// Bytes of rows, logs and index. The table of cells counts the cells.
    pub(crate) fn bytes(&self) -> usize {
        self.actors.iter().map(|(_, rows)| rows.bytes()).sum::<usize>() + self.views.bytes()
    }
}
