//! What has changed since a digest last listed it. With it, a digest costs what has changed, not what exists.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The number of a change. A reader stores the mark that it has reached.
pub(crate) type Mark = u64;

/// The actors of a structure, or the structures of a replica, in the order of their last change.
#[derive(Debug)]
pub(crate) struct Journal<T> {
    order: BTreeMap<Mark, T>,
    marks: BTreeMap<T, Mark>,
    last: Mark,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), marks: BTreeMap::new(), last: 0 }
    }
}

impl<T: Ord + Clone> Journal<T> {
    /// Notes a change. O(log entries).
    pub(crate) fn note(&mut self, changed: &T) {
        self.last += 1;
        if let Some(mark) = self.marks.get_mut(changed) {
            self.order.remove(mark);
            *mark = self.last;
        } else {
            self.marks.insert(changed.clone(), self.last);
        }
        self.order.insert(self.last, changed.clone());
    }

    /// The mark of the last change of an entry.
    pub(crate) fn mark(&self, of: &T) -> Option<Mark> {
        self.marks.get(of).copied()
    }

    /// Removes an entry that does not exist any more.
    pub(crate) fn forget(&mut self, gone: &T) {
        if let Some(mark) = self.marks.remove(gone) {
            self.order.remove(&mark);
        }
    }

    /// The mark of a reader that has received everything.
    pub(crate) fn last(&self) -> Mark {
        self.last
    }

    /// What has changed behind a mark, in order of change.
    pub(crate) fn behind(&self, mark: Mark) -> impl Iterator<Item = (Mark, &T)> {
        self.order.range((Bound::Excluded(mark), Bound::Unbounded)).map(|(mark, changed)| (*mark, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_comes_last_and_once() {
        let mut journal = Journal::default();
        ["a", "b", "c", "a"].iter().for_each(|name| journal.note(name));
        let names = |journal: &Journal<&'static str>, mark| -> Vec<&str> {
            journal.behind(mark).map(|(_, name)| *name).collect()
        };
        assert_eq!(names(&journal, 0), ["b", "c", "a"]);
        let read = journal.last();
        assert!(names(&journal, read).is_empty());
        journal.note(&"b");
        assert_eq!(names(&journal, read), ["b"]);
        journal.forget(&"b");
        assert!(names(&journal, read).is_empty());
    }
}
