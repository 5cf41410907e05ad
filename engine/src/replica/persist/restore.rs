//! Restoring saved state: rows are joined like rows from a peer, as rows of the actor that wrote them.

use tallymesh_schemas::message::Delta;
use tallymesh_schemas::saved::{self, Extent, Facts, Head, Shape};
use tallymesh_schemas::{Actor, Incarnation, NoSuchRun, StructureId, UnixMs, Version, Window};

use crate::canary::{self, Canary};
use crate::counter::join::{Fit, Source};
use crate::counter::persist::PersistedExtent;
use crate::replica::Replica;
use crate::replica::persist::error::RestoreError;
use crate::replica::persist::stored::{self, InMemory, SavedRows};
use crate::replica::report::Event;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::runs::tombstone::FORGOTTEN_BEFORE;
use crate::time::Now;

/// What to do with saved rows.
enum Fate {
    Joins,
    /// They are entries of a cache in the form of an earlier build.
    Converts,
    Waits,
    /// Their window is over, or their series is not saved any more.
    Over,
    /// No structure of that name is configured: they stay saved as they are.
    Stays,
}

/// The run to begin after the run that saved these facts: that of the wall clock, or the run's successor if the wall clock is
/// not later. The facts may be older than the last saved state, so a run that they do not contain may have begun as well.
///
/// # Errors
/// [`NoSuchRun`] when the run that saved them was the last possible one.
pub fn next_run(facts: &Facts, unix_ms: UnixMs) -> Result<Incarnation, NoSuchRun> {
    if saved_run_is_continued() {
        return Ok(facts.incarnation);
    }
    let run = Incarnation(unix_ms.0).checked()?;
    if run > facts.incarnation { Ok(run) } else { facts.incarnation.successor(unix_ms) }
}

/// Restoring. Call these methods before any input or counting, in this order: the facts, the rows, [`Replica::restored`].
impl Replica {
    /// Restores the saved facts that are not rows. This replica's run has to be later than the run in them.
    pub fn restore_facts(&mut self, now: Now, facts: Facts) {
        let name = self.runs.actor.node.clone();
        for mut tombstone in facts.tombstones {
            // This tombstone is an operator's statement from an earlier run. It voids the same runs, but the division of limits
            // must not leave out a node that has come back since.
            tombstone.from = tombstone.from.max(FORGOTTEN_BEFORE);
            self.add_tombstone(now, tombstone, name.clone());
        }
        for node in facts.nodes {
            self.note_run(now, &Actor::new(node.name.clone(), node.incarnation), &name);
            if let Some(known) = self.runs.nodes.get_mut(&node.name).filter(|_| node.left) {
                (known.life, known.reported) = (Life::Left, (node.incarnation, Life::Left));
            }
        }
        self.keep_state();
    }

    /// Restores an actor's rows in a structure, all of them in memory; see [`Replica::restore_rows`].
    ///
    /// # Errors
    /// As [`Replica::restore_rows`].
    pub fn restore(&mut self, now: Now, part: saved::Part) -> Result<(), RestoreError> {
        let saved::Part { shape, actor, extent, rows } = part;
        self.restore_rows(now, Head { shape, actor, extent }, &InMemory::new(rows))
    }

    /// Restores an actor's rows in a structure. Rows of structures that are not configured stay saved. Rows of windows that are
    /// over are dropped. The rows are read one piece at a time: a piece, and 16 bytes per row, are in memory. Only rows that
    /// cannot be joined yet are read completely, and wait.
    ///
    /// # Errors
    /// The rows cannot be read, are not what was saved, or the structure has another class now.
    pub fn restore_rows<R: SavedRows>(&mut self, now: Now, head: Head, rows: &R) -> Result<(), R::Error> {
        if self.restore_stream(now, &head, rows)? == Taken::Waits {
            let rows = InMemory::read(rows)?;
            self.wait(head, rows);
        }
        Ok(())
    }

    fn wait(&mut self, Head { shape, actor, extent }: Head, rows: InMemory) {
        let part = saved::Part { shape, actor, extent, rows: rows.into_rows() };
        self.persistence.get_or_insert_default().wait(part);
    }

    fn restore_stream<R: SavedRows>(&mut self, now: Now, head: &Head, rows: &R) -> Result<Taken, R::Error> {
        // Until the rows are joined, or if they are not, they count as saved and not present.
        let saved = PersistedExtent::of(&head.extent);
        let (copied, taken) = match self.fate(&head.shape) {
            Fate::Joins => match self.join_saved(now, head, rows)? {
                Joined::As(copied) => (copied, Taken::Done),
                Joined::Not => (saved, Taken::Done),
            },
            Fate::Converts => {
                self.restore_rows_of_cache(head, rows)?;
                (saved, Taken::Done)
            }
            Fate::Waits => (saved, Taken::Waits),
            Fate::Over => (saved, Taken::Done),
            Fate::Stays => {
                self.note_unclaimed(head.shape.id());
                return Ok(Taken::Done);
            }
        };
        let part = (head.shape.id(), head.actor.clone());
        self.persistence.get_or_insert_default().note_copy(part, copied);
        Ok(taken)
    }

    /// All saved state was restored. It is kept beyond the budgets, which is reported: no further keys fit.
    pub fn restored(&mut self, now: Now) {
        let objects = self.structures.values().filter(|held| !held.structure.is_window());
        objects.for_each(|held| held.structure.note_overfull());
        self.series().for_each(|series| series.budget().note_overfull());
        self.budget.note_overfull();
        self.runs.note_all_changed();
        self.update_life(now);
    }

    /// Tries again to join the rows that wait.
    pub(crate) fn restore_waiting(&mut self, now: Now) {
        let waiting = self.persistence.as_mut().map(|persistence| persistence.take_waiting()).unwrap_or_default();
        for saved::Part { shape, actor, extent, rows } in waiting {
            let (head, rows) = (Head { shape, actor, extent }, InMemory::new(rows));
            match self.restore_stream(now, &head, &rows) {
                Ok(Taken::Done) => {}
                Ok(Taken::Waits) => self.wait(head, rows),
                Err(error) => self.event(Event::NotRestored(error)),
            }
        }
    }

    /// There is saved state of an object that is not configured.
    pub(crate) fn note_unclaimed(&mut self, id: StructureId) {
        self.persistence.get_or_insert_default().unclaimed.insert(id);
    }

    /// Whether there is saved state of an object that was not configured when the state was restored. Only a restart can join
    /// it.
    pub fn has_unclaimed(&self, id: StructureId) -> bool {
        self.persistence.as_ref().is_some_and(|persistence| persistence.unclaimed.contains(&id))
    }

    fn fate(&self, shape: &Shape) -> Fate {
        if self.structures.contains_key(&shape.id()) {
            return Fate::Joins;
        }
        if self.caches.get(shape.id()).is_some() {
            return Fate::Converts;
        }
        let window = |text: &str| text.parse::<Window>().ok();
        let Some((series, window)) = shape.name.split_once('@').and_then(|(of, at)| Some((of, window(at)?))) else {
            return Fate::Stays;
        };
        let later = self.series().filter(|held| held.spec().persist).any(|held| {
            let name = held.spec().structure(window).name;
            name.as_str().split_once('@').is_some_and(|(of, _)| of == series) && window > held.current()
        });
        if later { Fate::Waits } else { Fate::Over }
    }

    fn join_saved<R: SavedRows>(&mut self, now: Now, head: &Head, rows: &R) -> Result<Joined, R::Error> {
        let (id, name, actor, extent) = (head.shape.id(), &head.shape.name, &head.actor, &head.extent);
        let Some(held) = self.structures.get(&id).filter(|held| held.is_saved()) else { return Ok(Joined::Not) };
        let spec = held.structure.spec();
        if spec.name.as_str() != name || spec.class != head.shape.class {
            let (saved, configured) = (head.shape.class.name(), spec.class.name());
            return Err(RestoreError::Class { name: name.clone(), saved, configured }.into());
        }
        let us = self.runs.actor.node.clone();
        if self.note_run(now, actor, &us) < RunStatus::Earlier {
            return Ok(Joined::Not);
        }
        let Some(held) = self.structures.get(&id) else { return Ok(Joined::Not) };
        let mut order = stored::order(rows)?;
        order.retain(|(version, _)| *version <= extent.applied);
        let alone = held.structure.admit_saved(actor, extent.since);
        self.runs.note_changed(&actor.node);
        let wrong = |error| RestoreError::Rows { name: name.clone(), actor: actor.clone(), error };
        stored::each_piece(
            rows,
            &order,
            extent,
            |error| wrong(error.into()),
            |piece| {
                // If a piece has a gap, a peer has already sent later rows of this actor.
                let delta = as_delta(head, (piece.after, piece.upto), &piece.rows);
                held.structure.apply(&delta, (Source::Other, Fit::Unchecked), now.mono).map(drop).map_err(wrong)
            },
        )?;
        match held.structure.restored(actor, extent) {
            Some(copied) => Ok(Joined::As(copied)),
            // A peer has sent rows of this actor as well, or some rows were restored earlier.
            None if !alone => Ok(Joined::Not),
            None => Err(RestoreError::Differs { name: name.clone(), actor: actor.clone() }.into()),
        }
    }
}

/// Saved rows of `(after, upto]` in the form in which a peer sends rows.
fn as_delta<'a>(head: &Head, (after, upto): (Version, Version), rows: &'a [u8]) -> Delta<'a> {
    let Extent { since, low_water, .. } = head.extent;
    let (structure, actor) = (head.shape.id(), head.actor.clone());
    Delta {
        structure,
        actor,
        since,
        keys_complete: since,
        after,
        upto,
        low_water,
        snapshot: false,
        fingerprint: None,
        rows,
    }
}

/// Whether saved rows have to be tried again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Done,
    Waits,
}

/// The result of joining saved rows.
enum Joined {
    /// They are here as they are saved.
    As(PersistedExtent),
    /// They are not here: they are forgotten, or of no use any more.
    Not,
}

/// Whether a restored run may be a continuation of the run that saved it.
fn saved_run_is_continued() -> bool {
    canary::broken(Canary::RunTakenUp)
}
