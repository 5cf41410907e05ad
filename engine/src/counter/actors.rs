//! The rows of all actors of a structure, by actor.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use tallymesh_schemas::Actor;

use crate::rows::actor_rows::ActorRows;

/// All actors with their rows.
#[derive(Debug, Default)]
pub(crate) struct Actors {
    places: BTreeMap<Actor, usize>,
    /// In no particular order, and without holes.
    copies: Vec<Copies>,
}

/// What this replica holds of one actor.
#[derive(Debug)]
pub(crate) struct Copies {
    actor: Actor,
    pub(crate) rows: ActorRows,
    /// The staging copy: a snapshot that is being received and will replace the rows.
    pub(crate) staging: Option<Box<ActorRows>>,
}

impl Actors {
    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }

    /// What this replica holds of an actor.
    pub(crate) fn copies(&self, actor: &Actor) -> Option<&Copies> {
        self.copies.get(*self.places.get(actor)?)
    }

    pub(crate) fn copies_mut(&mut self, actor: &Actor) -> Option<&mut Copies> {
        self.copies.get_mut(*self.places.get(actor)?)
    }

    /// The rows of an actor.
    pub(crate) fn get(&self, actor: &Actor) -> Option<&ActorRows> {
        self.copies(actor).map(|copies| &copies.rows)
    }

    pub(crate) fn get_mut(&mut self, actor: &Actor) -> Option<&mut ActorRows> {
        self.copies_mut(actor).map(|copies| &mut copies.rows)
    }

    /// Inserts an actor that is not there.
    pub(crate) fn insert(&mut self, actor: Actor, rows: ActorRows) {
        debug_assert!(!self.places.contains_key(&actor), "an actor is inserted once");
        self.places.insert(actor.clone(), self.copies.len());
        self.copies.push(Copies { actor, rows, staging: None });
    }

    /// Removes an actor.
    pub(crate) fn remove(&mut self, actor: &Actor) -> Option<Copies> {
        let place = self.places.remove(actor)?;
        let removed = self.copies.swap_remove(place);
        if let Some(moved) = self.copies.get(place)
            && let Some(at) = self.places.get_mut(&moved.actor)
        {
            *at = place;
        }
        Some(removed)
    }

    /// All actors in order, with their rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Actor, &ActorRows)> + Clone {
        self.range(..)
    }

    /// Some actors in order, with their rows.
    pub(crate) fn range(
        &self,
        actors: impl RangeBounds<Actor>,
    ) -> impl DoubleEndedIterator<Item = (&Actor, &ActorRows)> + Clone {
        let places = self.places.range(actors);
        places.filter_map(|(actor, place)| Some((actor, &self.copies.get(*place)?.rows)))
    }

    /// The copies of some actors, in order of actor.
    pub(crate) fn copies_in(&self, actors: impl RangeBounds<Actor>) -> impl Iterator<Item = (&Actor, &Copies)> {
        self.places.range(actors).filter_map(|(actor, place)| Some((actor, self.copies.get(*place)?)))
    }

    /// All copies of rows that this replica holds, in order of actor: the rows of each actor, then its staging copy.
    pub(crate) fn all_copies(&self) -> impl Iterator<Item = (&Actor, &Copies)> {
        self.places.iter().filter_map(|(actor, place)| Some((actor, self.copies.get(*place)?)))
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Incarnation, NodeName, Version};

    use super::*;

    fn actor(name: &str) -> Actor {
        Actor::new(NodeName::new(name).unwrap(), Incarnation(1))
    }

    #[test]
    fn each_actor_keeps_its_rows_when_another_goes() {
        let mut actors = Actors::default();
        for (name, since) in [("c", 3), ("a", 1), ("b", 2)] {
            actors.insert(actor(name), ActorRows::new(Version(since)));
        }
        let sinces = |actors: &Actors| actors.iter().map(|(_, rows)| rows.since.0).collect::<Vec<_>>();
        assert_eq!(sinces(&actors), [1, 2, 3]);
        assert_eq!(actors.remove(&actor("c")).map(|copies| copies.rows.since), Some(Version(3)));
        assert_eq!(sinces(&actors), [1, 2]);
        assert_eq!(actors.get(&actor("b")).map(|rows| rows.since), Some(Version(2)));
        assert_eq!(actors.copies_mut(&actor("a")).map(|copies| copies.rows.since), Some(Version(1)));
        assert!(actors.remove(&actor("c")).is_none());
    }
}
