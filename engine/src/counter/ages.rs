//! The times of the last changes of the entries of a gauge cache, as far as this node knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use tallymesh_schemas::{Actor, UnixMs, Version};

use crate::counter::marks::RowLeft;
use crate::keyspace::hash::{fold, key_hash};
use crate::time::Time;

/// A moment in microseconds. Unlike [`Time`], it may be before the start of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// The start of [`Time`] as a [`Moment`].
const BEGIN: u64 = 1 << 62;

impl From<Time> for Moment {
    fn from(time: Time) -> Self {
        Self(BEGIN.saturating_add(time.0))
    }
}

impl Moment {
    pub(super) fn age(self, now: Time) -> Duration {
        Duration::from_micros(Self::from(now).0.saturating_sub(self.0))
    }
}

/// How many actors one call of [`Ages::forget_gone`] looks at.
const LOOKED_AT: usize = 64;

/// What is known of an entry.
#[derive(Debug, Clone, Copy)]
struct Known {
    changed: Moment,
    /// A hash of the entry's rows at that change.
    rows: u64,
}

/// A hash of the rows of a key: which runs have rows, and in which versions.
fn hash_of(rows: &[RowLeft]) -> u64 {
    let hash = |row: &RowLeft| {
        let actor = key_hash(row.actor.node.as_str().as_bytes()) ^ row.actor.incarnation.0;
        fold(actor, row.version.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    };
    rows.iter().fold(0, |sum, row| sum.wrapping_add(hash(row)))
}

/// The last changes of the entries.
#[derive(Debug, Default)]
pub(super) struct Ages {
    by_key: BTreeMap<Vec<u8>, Known>,
    by_age: BTreeSet<(Moment, Vec<u8>)>,
    /// Entries of unknown age, because no node has marked their rows yet. Until then they count as new. The value is their
    /// last known change before these rows arrived.
    doubtful: BTreeMap<Vec<u8>, Option<Moment>>,
    actors: BTreeMap<Actor, Marked>,
    /// The actors with rows that no mark covers yet.
    unmarked: BTreeSet<Actor>,
    /// The actor at which the last call of [`Ages::forget_gone`] ended.
    looked_at: Option<Actor>,
}

/// How far an actor's rows are marked.
#[derive(Debug, Default)]
struct Marked {
    /// The highest version of a row seen here.
    last: Version,
    covered: Version,
    /// When the first change arrived that no mark covers.
    open: Option<Time>,
    /// When this node last tried to mark the rows.
    marked: Option<Time>,
}

impl Ages {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Moment> {
        self.by_key.get(key).map(|known| known.changed)
    }

    /// The entries behind a key, or all entries, in order.
    pub(super) fn behind(&self, after: Option<&[u8]>) -> impl Iterator<Item = (&Vec<u8>, Moment)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, known)| (key, known.changed))
    }

    /// The entries in order of age behind a place in that order, the oldest first.
    pub(super) fn oldest(&self, behind: Option<&(Moment, Vec<u8>)>) -> impl Iterator<Item = &(Moment, Vec<u8>)> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_age.range((from, Bound::Unbounded))
    }

    fn set(&mut self, key: Vec<u8>, known: Option<Known>) {
        let was = match known {
            Some(known) => self.by_key.insert(key.clone(), known),
            None => self.by_key.remove(&key),
        };
        let entry = |known: Known| (known.changed, key.clone());
        if let Some(was) = was {
            self.by_age.remove(&entry(was));
        }
        if let Some(known) = known {
            self.by_age.insert(entry(known));
        }
    }

    /// Handles a key that may have changed: an entry whose rows are as before keeps its age.
    pub(super) fn compare(&mut self, key: Vec<u8>, rows: &[RowLeft], now: Time) {
        let known = self.by_key.get(&key).map(|known| known.rows);
        if known != (!rows.is_empty()).then(|| hash_of(rows)) {
            self.note(key, rows, now);
        }
    }

    /// Handles a changed key; `rows` are the rows of the key that were not cleared.
    pub(super) fn note(&mut self, key: Vec<u8>, rows: &[RowLeft], now: Time) {
        if rows.is_empty() {
            self.doubtful.remove(&key);
            return self.set(key, None);
        }
        for row in rows {
            self.saw(row, now);
        }
        if rows.iter().all(|row| row.inherited) {
            let known = self.get(&key);
            self.doubtful.entry(key.clone()).or_insert(known);
        } else {
            self.doubtful.remove(&key);
        }
        self.set(key, Some(Known { changed: now.into(), rows: hash_of(rows) }));
    }

    fn saw(&mut self, row: &RowLeft, now: Time) {
        if !self.actors.contains_key(&row.actor) {
            self.actors.insert(row.actor.clone(), Marked::default());
        }
        if let Some(seen) = self.actors.get_mut(&row.actor).filter(|seen| seen.last < row.version) {
            seen.last = row.version;
            seen.open.get_or_insert(now);
            if seen.covered < seen.last {
                self.unmarked.insert(row.actor.clone());
            }
        }
    }

    /// The last change of these rows, when the wall clock shows `unix_ms` now; `None` when it is not known.
    fn date(rows: &[RowLeft], unix_ms: Option<UnixMs>, now: Time) -> Option<Moment> {
        let unix_us = unix_ms?.micros();
        let moment = |marked: u64| {
            let age = unix_us.saturating_sub(marked.saturating_mul(1000));
            Moment(Moment::from(now).0.saturating_sub(age.min(BEGIN)))
        };
        let all = rows.iter().map(|row| row.marked.map(moment));
        all.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten()
    }

    /// At most `most` entries of unknown age behind a key, in order.
    pub(super) fn doubtful(&self, after: Option<&[u8]>, most: usize) -> Vec<Vec<u8>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let doubtful = self.doubtful.range::<[u8], _>((from, Bound::Unbounded));
        doubtful.take(most).map(|(key, _)| key.clone()).collect()
    }

    /// Tries again to determine the age of an entry whose age was unknown.
    pub(super) fn settle(&mut self, key: Vec<u8>, rows: &[RowLeft], unix_ms: Option<UnixMs>, now: Time) {
        let (Some(before), Some(at)) = (self.doubtful.get(&key).copied(), Self::date(rows, unix_ms, now)) else {
            return;
        };
        self.doubtful.remove(&key);
        let Some(known) = self.by_key.get(&key).copied() else { return };
        let dated = before.map_or(at, |before| before.max(at));
        self.set(key, Some(Known { changed: known.changed.min(dated), ..known }));
    }

    /// Returns at most `most` actors whose rows this node has to mark now, each with the version up to which no mark covers
    /// the rows. `patience` is how long this node waits for other nodes to write the mark. An actor is returned again after
    /// `interval`, unless [`Ages::note_marked`] was called for it.
    pub(super) fn unmarked(
        &mut self,
        now: Time,
        most: usize,
        (interval, patience): (Duration, impl Fn(&Actor) -> Duration),
        covered: impl Fn(&Actor, Version) -> bool,
    ) -> Vec<(Actor, Version)> {
        let (mut due, actors) = (Vec::new(), &mut self.actors);
        self.unmarked.retain(|actor| {
            let Some(seen) = actors.get_mut(actor) else { return false };
            if covered(actor, seen.last) {
                (seen.covered, seen.open) = (seen.last, None);
                return false;
            }
            if due.len() >= most {
                return true;
            }
            let waited = seen.open.is_some_and(|open| now.since(open) >= patience(actor));
            if waited && seen.marked.is_none_or(|marked| now.since(marked) >= interval) {
                seen.marked = Some(now);
                due.push((actor.clone(), seen.last));
            }
            true
        });
        due
    }

    /// This node has written a mark of an actor's rows up to a version.
    pub(super) fn note_marked(&mut self, actor: &Actor, upto: Version) {
        let Some(seen) = self.actors.get_mut(actor) else { return };
        (seen.covered, seen.open) = (upto.max(seen.covered), None);
        if seen.covered >= seen.last {
            self.unmarked.remove(actor);
        }
    }

    /// Removes actors that no longer have rows. A call looks at those of which rows are not marked, and at a bounded number of
    /// others.
    pub(super) fn forget_gone(&mut self, is_there: impl Fn(&Actor) -> bool) {
        let behind = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> =
            self.actors.range((behind, Bound::Unbounded)).take(LOOKED_AT).map(|(actor, _)| actor.clone()).collect();
        if some.len() == LOOKED_AT {
            self.looked_at = some.last().cloned();
        }
        let gone: Vec<_> = some.iter().chain(&self.unmarked).filter(|actor| !is_there(actor)).cloned().collect();
        for actor in gone {
            self.actors.remove(&actor);
            self.unmarked.remove(&actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Incarnation, NodeName};

    use super::*;

    /// A mark for which there is no room is written later.
    #[test]
    fn an_actor_is_returned_until_it_is_marked() {
        let actor = Actor::new(NodeName::new("a").unwrap(), Incarnation(1));
        let row = |version| RowLeft { actor: actor.clone(), version: Version(version), inherited: false, marked: None };
        let mut ages = Ages::default();
        let second = |n: u64| Time(n * 1_000_000);
        let due = |ages: &mut Ages, at| {
            let due = ages.unmarked(second(at), 10, (Duration::from_secs(5), |_: &Actor| Duration::ZERO), |_, _| false);
            due.into_iter().map(|(_, upto)| upto.0).collect::<Vec<_>>()
        };
        ages.note(b"key".to_vec(), &[row(3)], second(0));
        assert_eq!(due(&mut ages, 1), [3]);
        assert!(due(&mut ages, 5).is_empty(), "not before the interval is over");
        assert_eq!(due(&mut ages, 6), [3], "it was not marked");
        ages.note_marked(&actor, Version(3));
        assert!(due(&mut ages, 20).is_empty());
        ages.note(b"key".to_vec(), &[row(4)], second(21));
        assert_eq!(due(&mut ages, 22), [4]);
    }
}
