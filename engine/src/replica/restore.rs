//! What outlived a run, taken back: joined as what a peer sends, as rows of the actor that wrote them.

use tallymesh_schemas::message::{Delta, Tombstone};
use tallymesh_schemas::rows::RowsError;
use tallymesh_schemas::saved::{self, Facts, Shape};
use tallymesh_schemas::{Actor, Incarnation, NoSuchRun, NodeName, Window};

use super::Replica;
use super::liveness::{Life, Standing};
use crate::canary::{self, Canary};
use crate::ledger::ApplyError;
use crate::sync::Copied;
use crate::time::Now;

/// Why what was saved is not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The structure is another one now.
    #[error(
        "\"{name}\" was saved as {saved} and is configured as {configured}: give it another name, or make it what it was"
    )]
    Class {
        /// Which.
        name: String,
        /// The class that it was saved as.
        saved: &'static str,
        /// The class that it has.
        configured: &'static str,
    },
    /// The rows cannot be read.
    #[error("the rows of {actor} in \"{name}\" cannot be read: {error}")]
    Rows {
        /// Where.
        name: String,
        /// Whose.
        actor: Actor,
        /// What is wrong.
        error: ApplyError,
    },
    /// The rows are not all there, or not what they were.
    #[error("the rows of {actor} in \"{name}\" are not those that were saved")]
    Differs {
        /// Where.
        name: String,
        /// Whose.
        actor: Actor,
    },
}

/// What is to become of saved rows.
enum Fate {
    Joins,
    Waits,
    /// Their window is over, or its series is not saved any more.
    Over,
    /// Nothing of that name is configured: they stay saved as they are.
    Stays,
}

/// The run to begin after one that knew these facts: that of the wall clock, and later than any that is known of the name.
///
/// # Errors
/// [`NoSuchRun`] when the one that knew them was the last there is.
pub fn next_run(facts: &Facts, unix_ms: u64) -> Result<Incarnation, NoSuchRun> {
    if canary::broken(Canary::RunTakenUp) {
        return Ok(facts.incarnation);
    }
    facts.incarnation.next()?.max(Incarnation(unix_ms)).checked()
}

/// Taking back. To be called before anything comes in or is counted: first the facts, then the rows, then the end.
impl Replica {
    /// Takes back what was known beside rows. The replica's own run has to be later than the one in there.
    pub fn restore_facts(&mut self, now: Now, facts: Facts) {
        let name = self.actor.node.clone();
        for mut tombstone in facts.tombstones {
            // An operator's word of an earlier life: it buries the same runs, but what may have come back since is not to be
            // left out when limits are divided.
            tombstone.from = tombstone.from.max(BURIED_BEFORE);
            if tombstone.until_ms > now.unix_ms {
                self.bury(now, tombstone, &name);
            }
        }
        for node in facts.nodes {
            self.see(now, &Actor::new(node.name.clone(), node.incarnation), &name);
            if let Some(known) = self.nodes.get_mut(&node.name).filter(|_| node.left) {
                (known.life, known.told) = (Life::Left, Life::Left);
            }
        }
        let store = self.store.get_or_insert_default();
        store.last = Some(facts.incarnation);
        // What an operator says here is said now.
        store.met.insert(name);
    }

    /// Takes back an actor's rows in a structure. Rows of structures that are not configured are left where they are, those of
    /// windows that are over are dropped.
    ///
    /// # Errors
    /// [`RestoreError`] when they are not what was saved, or the structure is of another class now.
    pub fn restore(&mut self, now: Now, part: saved::Part) -> Result<(), RestoreError> {
        let key = (part.shape.id(), part.actor.clone());
        let mut store = self.store.take().unwrap_or_default();
        // Until it is joined, and where it is not, it is something that was saved and is not there.
        let saved = Copied::of(&part.extent);
        let result = match self.fate(&part.shape) {
            Fate::Joins => self.join_saved(now, &part).map(|joined| match joined {
                Joined::As(copied) => drop(store.copies.insert(key, copied)),
                Joined::Not => drop(store.copies.insert(key, saved)),
                Joined::Ahead => {
                    store.copies.insert(key, saved);
                    store.waiting.push(part);
                }
            }),
            Fate::Waits => {
                store.copies.insert(key, saved);
                store.waiting.push(part);
                Ok(())
            }
            Fate::Over => {
                store.copies.insert(key, saved);
                Ok(())
            }
            Fate::Stays => Ok(()),
        };
        self.store = Some(store);
        result
    }

    /// Everything was taken back.
    pub fn restored(&mut self, now: Now) {
        for held in self.structures.values().filter(|held| held.structure.is_cache()) {
            held.structure.settle_registers(now.mono);
            if !held.shared {
                // Nobody else has what the earlier runs had.
                let before = Incarnation(0)..=Incarnation(self.actor.incarnation.0.saturating_sub(1));
                held.structure.drop_runs(&self.actor.node, &before, false);
            }
        }
        self.life_changed.extend(self.nodes.keys().cloned());
        self.update_life(now);
    }

    /// Tries again to join what waits.
    pub(super) fn restore_waiting(&mut self, now: Now) {
        let waiting = self.store.as_mut().map(|store| std::mem::take(&mut store.waiting)).unwrap_or_default();
        for part in waiting {
            if let Err(error) = self.restore(now, part) {
                self.event(super::Event::NotRestored(error));
            }
        }
    }

    fn fate(&self, shape: &Shape) -> Fate {
        if self.structures.contains_key(&shape.id()) {
            return Fate::Joins;
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

    fn join_saved(&mut self, now: Now, part: &saved::Part) -> Result<Joined, RestoreError> {
        let (id, name, actor) = (part.shape.id(), &part.shape.name, &part.actor);
        let Some(held) = self.structures.get(&id).filter(|held| held.is_saved()) else { return Ok(Joined::Not) };
        let spec = held.structure.spec();
        if spec.name.as_str() != name || spec.class != part.shape.class {
            let (saved, configured) = (part.shape.class.name(), spec.class.name());
            return Err(RestoreError::Class { name: name.clone(), saved, configured });
        }
        let us = self.actor.node.clone();
        if self.see(now, actor, &us) < Standing::Earlier {
            return Ok(Joined::Not);
        }
        let wrong = |error| RestoreError::Rows { name: name.clone(), actor: actor.clone(), error };
        let pieces = part.clone().pieces().map_err(|error: RowsError| wrong(error.into()))?;
        let Some(held) = self.structures.get(&id) else { return Ok(Joined::Not) };
        let deltas = pieces.iter().map(|piece| Delta {
            structure: id,
            actor: actor.clone(),
            since: part.extent.since,
            known: part.extent.since,
            after: piece.after,
            upto: piece.upto,
            floor: part.extent.floor,
            snapshot: false,
            fingerprint: None,
            rows: &piece.rows,
        });
        let deltas: Vec<_> = deltas.collect();
        if deltas.iter().any(|delta| held.structure.ahead(delta, now.unix_ms).is_some()) {
            return Ok(Joined::Ahead);
        }
        let alone = held.structure.admit_saved(actor, part.extent.since);
        self.life_changed.insert(actor.node.clone());
        for delta in &deltas {
            // Where it does not follow, somebody has told more of these rows.
            held.structure.apply(delta, false, now.mono).map_err(wrong)?;
        }
        match held.structure.restored(actor, &part.extent) {
            Some(copied) => Ok(Joined::As(copied)),
            // Somebody has told of them as well.
            None if !alone => Ok(Joined::Not),
            None => Err(RestoreError::Differs { name: name.clone(), actor: actor.clone() }),
        }
    }
}

/// What became of saved rows.
enum Joined {
    /// They are here as they are saved.
    As(Copied),
    /// They are not here: they are forgotten, or of no use any more.
    Not,
    /// They were written too far ahead of our clock.
    Ahead,
}

/// The first run of a node that is said to be forgotten where that is known from what was saved: it stands for all of them,
/// as 0 does, and no run is the first one.
pub(super) const BURIED_BEFORE: Incarnation = Incarnation(1);

/// What was forgotten while we were away.
impl Replica {
    /// Whether what a peer says of the forgotten may be of a time when this node was away, and what it has was saved before: the
    /// others have not waited for it with what they retire since.
    pub(super) fn was_away(&self, peer: &NodeName) -> bool {
        let restored = self.store.as_ref().filter(|store| store.last.is_some());
        restored.is_some_and(|store| !store.met.contains(peer)) && !canary::broken(Canary::StaleTakenOver)
    }

    /// Whether a tombstone says that this node was forgotten while it was away.
    pub(super) fn was_forgotten(&self, tombstone: &Tombstone) -> bool {
        let last = self.store.as_ref().and_then(|store| store.last);
        tombstone.node == self.actor.node && last.is_some_and(|last| tombstone.incarnation >= last)
    }

    /// A peer has told everything that it knows.
    pub(super) fn meet(&mut self, peer: &NodeName) {
        if let Some(store) = self.store.as_mut().filter(|store| store.last.is_some() && !store.met.contains(peer)) {
            store.met.insert(peer.clone());
        }
    }
}
