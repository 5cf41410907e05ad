//! The actors whose rows have changed since a digest last listed them. With it, a digest costs what has changed, not what
//! exists.

use std::collections::BTreeMap;
use std::ops::Bound;

use tallymesh_schemas::{Actor, Version};

/// The number of a change in a structure. A reader stores the mark that it has reached.
pub(crate) type Mark = u64;

/// The last version of an actor's rows, and the fingerprint there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) version: Version,
    pub(crate) fingerprint: u64,
}

/// The actors of a structure in the order of their last change.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    order: BTreeMap<Mark, Actor>,
    marks: BTreeMap<Actor, Mark>,
    last: Mark,
    /// This node's own head when it was last noted.
    own: Head,
}

impl Journal {
    /// Notes that this replica's knowledge of an actor has changed. O(log actors).
    pub(crate) fn note(&mut self, actor: &Actor) {
        self.last += 1;
        if let Some(mark) = self.marks.get_mut(actor) {
            self.order.remove(mark);
            *mark = self.last;
        } else {
            self.marks.insert(actor.clone(), self.last);
        }
        self.order.insert(self.last, actor.clone());
    }

    /// Notes this node's own head, if it has changed.
    pub(crate) fn note_own(&mut self, actor: &Actor, head: Head) {
        if self.own != head || !self.marks.contains_key(actor) {
            self.own = head;
            self.note(actor);
        }
    }

    /// Removes an actor that the ledger no longer holds.
    pub(crate) fn forget(&mut self, actor: &Actor) {
        if let Some(mark) = self.marks.remove(actor) {
            self.order.remove(&mark);
        }
    }

    /// The mark of a reader that has received everything.
    pub(crate) fn last(&self) -> Mark {
        self.last
    }

    /// The actors that have changed behind a mark, in order of change.
    pub(crate) fn behind(&self, mark: Mark) -> impl Iterator<Item = (Mark, &Actor)> {
        self.order.range((Bound::Excluded(mark), Bound::Unbounded)).map(|(mark, actor)| (*mark, actor))
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Incarnation, NodeName};

    use super::*;

    fn actor(name: &str) -> Actor {
        Actor::new(NodeName::new(name).unwrap(), Incarnation(1))
    }

    #[test]
    fn what_changes_comes_last_and_once() {
        let mut journal = Journal::default();
        ["a", "b", "c", "a"].iter().for_each(|name| journal.note(&actor(name)));
        let names = |journal: &Journal, mark| -> Vec<String> {
            journal.behind(mark).map(|(_, actor)| actor.node.to_string()).collect()
        };
        assert_eq!(names(&journal, 0), ["b", "c", "a"]);
        let read = journal.last();
        assert!(names(&journal, read).is_empty());
        journal.note(&actor("b"));
        assert_eq!(names(&journal, read), ["b"]);
        journal.forget(&actor("b"));
        assert!(names(&journal, read).is_empty());
    }

    #[test]
    fn our_own_head_is_noted_when_it_changes() {
        let mut journal = Journal::default();
        journal.note_own(&actor("a"), Head::default());
        let read = journal.last();
        journal.note_own(&actor("a"), Head::default());
        assert_eq!(journal.last(), read);
        journal.note_own(&actor("a"), Head { version: Version(1), fingerprint: 7 });
        assert_eq!(journal.behind(read).count(), 1);
    }
}
