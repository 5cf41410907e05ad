//! The changes of an object, for the connections that watch it.
//!
//! All watchers of an object share one list of changed keys, with each key once, ordered by latest change. A watcher keeps only
//! its position in the list, so a watcher that does not read costs no more than one that does.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tallymesh_engine::Watch;
use tallymesh_schemas::admin::PAGE_ITEMS;
use tallymesh_schemas::{StructureId, bounds};
use tokio::sync::Notify;

use crate::object::Object;

/// The most changed keys that are kept for the watchers of one object, and the most changes that wait to enter the list.
const CHANGES: usize = bounds::WATCHED_CHANGES;

/// Most bytes of keys in one message to a watcher. The node holds this much for a watcher that does not read.
const PAGE: usize = 16 << 10;

/// The change lists of the watched objects.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<BTreeMap<StructureId, Weak<Feed>>>);

impl Feeds {
    /// The feed of an object. Creates it if the object has no watcher yet.
    pub(super) fn of(&self, object: &Object) -> Arc<Feed> {
        let id = object.spec().name.id();
        let mut feeds = self.0.lock();
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if let Some(feed) = feeds.get(&id).and_then(Weak::upgrade) {
            return feed;
        }
        let feed = Arc::new(Feed::new(object));
        feeds.insert(id, Arc::downgrade(&feed));
        feed
    }
}

#[derive(Debug)]
pub(super) struct Feed {
    watch: Arc<Watch>,
    pub(super) changed: Arc<Notify>,
    list: Mutex<List>,
}

impl Feed {
    fn new(object: &Object) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watch = object.watch(CHANGES, Arc::new(move || wake.notify_waiters()));
        Self { watch, changed, list: Mutex::new(List::new(CHANGES)) }
    }

    /// The start position of a watcher that wants all changes from now on.
    pub(super) fn begin(&self) -> Cursor {
        self.list().end()
    }

    /// The next changed keys after a watcher's cursor.
    pub(super) fn next(&self, cursor: &mut Cursor) -> (Vec<Arc<[u8]>>, u64) {
        self.list().next(cursor)
    }

    /// The list, updated with all changes so far.
    fn list(&self) -> MutexGuard<'_, List> {
        let mut list = self.list.lock();
        let (keys, lost) = self.watch.take();
        list.lost += lost;
        for key in keys {
            list.push(key);
        }
        list
    }
}

/// A watcher's position in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// The number of the last change that it has read.
    at: u64,
    /// The number of changes dropped from the list at that time.
    dropped: u64,
    /// The number of changes lost before they entered the list, at that time.
    lost: u64,
}

/// Keys in the order of their latest changes.
#[derive(Debug)]
struct List {
    capacity: usize,
    last: u64,
    /// Keys by the number of their latest change.
    by_change: BTreeMap<u64, Arc<[u8]>>,
    latest: BTreeMap<Arc<[u8]>, u64>,
    /// The number of the highest dropped change; `dropped` is how many were dropped.
    last_dropped: u64,
    dropped: u64,
    /// Changes that came too fast to enter the list.
    lost: u64,
}

impl List {
    fn new(capacity: usize) -> Self {
        let (by_change, latest) = (BTreeMap::new(), BTreeMap::new());
        Self { capacity, last: 0, by_change, latest, last_dropped: 0, dropped: 0, lost: 0 }
    }

    fn push(&mut self, key: Vec<u8>) {
        self.last += 1;
        let key: Arc<[u8]> = key.into();
        if let Some(earlier) = self.latest.insert(Arc::clone(&key), self.last) {
            self.by_change.remove(&earlier);
        }
        self.by_change.insert(self.last, key);
        if self.by_change.len() > self.capacity
            && let Some((change, oldest)) = self.by_change.pop_first()
        {
            self.latest.remove(&oldest);
            (self.last_dropped, self.dropped) = (change, self.dropped + 1);
        }
    }

    /// The cursor after all changes.
    fn end(&self) -> Cursor {
        Cursor { at: self.last, dropped: self.dropped, lost: self.lost }
    }

    /// The next keys after a cursor, at most one page, and how many changes before them are lost.
    fn next(&self, cursor: &mut Cursor) -> (Vec<Arc<[u8]>>, u64) {
        let dropped = (self.dropped - cursor.dropped).min(self.last_dropped.saturating_sub(cursor.at));
        let lost = dropped + (self.lost - cursor.lost);
        (cursor.dropped, cursor.lost) = (self.dropped, self.lost);
        let (mut keys, mut bytes) = (Vec::new(), 0);
        for (change, key) in self.by_change.range(cursor.at + 1..) {
            if !keys.is_empty() && (keys.len() >= PAGE_ITEMS || bytes + key.len() > PAGE) {
                break;
            }
            bytes += key.len();
            cursor.at = *change;
            keys.push(Arc::clone(key));
        }
        (keys, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: (Vec<Arc<[u8]>>, u64)) -> (Vec<String>, u64) {
        (found.0.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect(), found.1)
    }

    #[test]
    fn each_watcher_is_told_of_each_key_once_and_of_what_it_lost() {
        let mut list = List::new(3);
        let mut first = list.end();
        for key in ["a", "b", "a"] {
            list.push(key.into());
        }
        let mut second = list.end();
        assert_eq!(keys(list.next(&mut first)), (vec!["b".to_owned(), "a".to_owned()], 0));
        assert_eq!(keys(list.next(&mut first)), (vec![], 0));
        for key in ["c", "d", "e", "f"] {
            list.push(key.into());
        }
        let kept: Vec<_> = ["d", "e", "f"].map(str::to_owned).into();
        assert_eq!(keys(list.next(&mut second)), (kept.clone(), 1), "c is lost; a and b were before its time");
        assert_eq!(keys(list.next(&mut first)), (kept, 1));
        list.lost += 7;
        assert_eq!(keys(list.next(&mut first)), (vec![], 7));
    }

    #[test]
    fn a_list_holds_no_more_than_its_capacity() {
        let mut list = List::new(8);
        for n in 0..10_000_u32 {
            list.push((n % 100).to_be_bytes().to_vec());
        }
        assert_eq!((list.by_change.len(), list.latest.len()), (8, 8));
    }
}
