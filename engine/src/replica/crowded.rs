//! Rows of other nodes for which the budgets have no room: this node's copies stay as they are, and it asks for the rows again
//! when there is room, or after pauses that grow.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::{Actor, StructureId};

use crate::pause::Pause;
use crate::replica::stream::StreamId;
use crate::time::Time;

/// The streams whose rows were refused, at most one entry for each copy that this node holds.
#[derive(Debug, Default)]
pub(crate) struct Crowded(BTreeMap<StreamId, Waiting>);

/// Rows that wait for room.
#[derive(Debug)]
struct Waiting {
    pause: Pause,
    /// So many more keys would have to fit; `None` once this node has asked again.
    keys: Option<u64>,
}

impl Waiting {
    /// Whether this node may ask, if `room` more keys fit.
    fn may_ask(&self, now: Time, room: u64) -> bool {
        self.pause.is_over(now) || self.keys.is_some_and(|keys| keys <= room)
    }
}

impl Crowded {
    /// Rows were refused: so many more keys would have to fit.
    pub(crate) fn note_refused(&mut self, part: StreamId, keys: u64, now: Time) {
        let new = Waiting { pause: Pause::first(now), keys: Some(keys) };
        let waiting = self.0.entry(part).or_insert(new);
        if waiting.keys.is_none() {
            waiting.pause = waiting.pause.next(now);
        }
        waiting.keys = Some(keys);
    }

    /// Rows were taken: those behind them may be asked for.
    pub(crate) fn note_taken(&mut self, part: &StreamId) {
        if !self.0.is_empty() {
            self.0.remove(part);
        }
    }

    pub(crate) fn contains(&self, part: &StreamId) -> bool {
        self.0.contains_key(part)
    }

    /// Whether rows of a stream were refused and were not taken since.
    pub(crate) fn waits_for_room(&self, id: StructureId, actor: &Actor) -> bool {
        !self.0.is_empty() && self.contains(&(id, actor.clone()))
    }

    /// Whether this node waits before it asks for rows, if `room` more keys fit.
    pub(crate) fn waits(&self, part: &StreamId, now: Time, room: u64) -> bool {
        self.0.get(part).is_some_and(|waiting| !waiting.may_ask(now, room))
    }

    /// Whether this node may ask for rows now. It then waits for the next pause before it asks again.
    pub(crate) fn ask(&mut self, part: &StreamId, now: Time, room: u64) -> bool {
        let Some(waiting) = self.0.get_mut(part) else { return true };
        if !waiting.may_ask(now, room) {
            return false;
        }
        (waiting.pause, waiting.keys) = (waiting.pause.again(now), None);
        true
    }

    /// The structures with rows that wait.
    pub(crate) fn structures(&self) -> BTreeSet<StructureId> {
        self.0.keys().map(|(id, _)| *id).collect()
    }

    /// Removes the streams that are `gone`.
    pub(crate) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        self.0.retain(|part, _| !gone(part));
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Actor, Incarnation, NodeName};

    use super::*;

    fn seconds(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    #[test]
    fn rows_are_asked_for_after_growing_pauses_or_when_there_is_room() {
        let part = (StructureId(1), Actor::new(NodeName::new("a").unwrap(), Incarnation(1)));
        let mut crowded = Crowded::default();
        assert!(crowded.ask(&part, seconds(0), 0));
        crowded.note_refused(part.clone(), 5, seconds(0));
        // Further refusals, for example of messages that were under way, do not make the pause longer.
        crowded.note_refused(part.clone(), 5, seconds(0));
        let mut asked = Vec::new();
        for second in 0..70 {
            if crowded.ask(&part, seconds(second), 4) {
                asked.push(second);
                assert!(crowded.waits(&part, seconds(second), 5), "it waits for the answer");
                crowded.note_refused(part.clone(), 5, seconds(second));
            }
        }
        assert_eq!(asked, [1, 3, 7, 15, 31, 63]);
        assert!(crowded.ask(&part, seconds(70), 5), "there is room");
        assert!(!crowded.ask(&part, seconds(71), 5), "the answer may be under way");
        crowded.note_taken(&part);
        assert!(crowded.ask(&part, seconds(71), 0) && crowded.structures().is_empty());
    }
}
