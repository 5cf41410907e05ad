//! The rows of a structure by actor, and the aggregates derived from them, behind one lock. The entry points are
//! [`Ledger::commit`] for this node's own rows and [`Ledger::apply`] for all other rows.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Actor, Version};

use crate::counter::actors::Actors;
use crate::counter::below::Debts;
use crate::counter::journal::{Journal, Mark};
use crate::counter::views::Views;
use crate::index::Index;
use crate::keyspace::cells::Cells;
use crate::rows::actor_rows::{ActorRows, Editions};
use crate::rows::writer::OwnRowWriter;
use crate::shape::Shape;
use crate::time::Time;

/// The last version of this node's own rows, and the fingerprint there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Head {
    version: Version,
    fingerprint: u64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) own: OwnRowWriter,
    pub(super) actors: Actors,
    pub(super) views: Views,
    pub(super) journal: Journal<Actor>,
    /// This node's own head when it was last noted.
    noted: Head,
    pub(super) editions: Editions,
    /// This node is leaving: its gauges are zero from now on, whatever the cells say.
    pub(super) closed: bool,
    /// Commits so far.
    pub(super) commits: u64,
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
            noted: Head::default(),
            editions: Editions::default(),
            closed: false,
            commits: 0,
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

    /// Notes this node's own head, if it has changed. Returns the mark of the last change. `read` is the highest mark that a
    /// reader has reached. O(1) if no reader has seen the last change of the own rows yet.
    pub(crate) fn note_own(&mut self, read: Mark) -> Mark {
        if let Some(own) = self.actors.get(&self.views.actor) {
            let head = Head { version: own.applied, fingerprint: own.fingerprint() };
            let mark = self.journal.mark(&self.views.actor);
            if mark.is_none() || (self.noted != head && mark <= Some(read)) {
                self.journal.note(&self.views.actor);
            }
            self.noted = head;
        }
        self.journal.last()
    }

    /// Whether this node's own head is noted.
    pub(crate) fn has_noted_own(&self) -> bool {
        let head = |own: &ActorRows| Head { version: own.applied, fingerprint: own.fingerprint() };
        self.own_rows().is_none_or(|own| head(own) == self.noted)
    }

    /// The mark of the last change.
    pub(crate) fn last_mark(&self) -> Mark {
        self.journal.last()
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
        let confirmed = rows.confirmed();
        (confirmed > Time(0) && rows.is_complete()).then(|| now.since(confirmed))
    }

    /// The number of actors that count, and when the stalest of them was last confirmed as current. O(actors).
    pub(crate) fn freshness(&self) -> (u32, Time) {
        let (mut counted, mut stalest) = (0, Time::NEVER);
        let mut actors = self.actors.iter().peekable();
        while let Some((actor, rows)) = actors.next() {
            // An earlier run has ended and adds nothing more, so its rows cannot be stale. The next run of its node follows
            // it here.
            let earlier = actors.peek().is_some_and(|(next, _)| next.node == actor.node);
            counted += u32::from(rows.counts);
            if rows.counts && !earlier && actor != self.actor() {
                stalest = stalest.min(rows.confirmed());
            }
        }
        (counted, stalest)
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
