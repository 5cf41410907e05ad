//! Watching a structure: the keys whose counts change, as they change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, Deref};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::wake::Wake;

/// A bounded queue of changed keys. Dropping the last reference ends the watch.
pub struct Watch {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Only keys with this prefix are reported.
    prefix: Vec<u8>,
    wake: Wake,
}

#[derive(Default)]
struct Queue {
    keys: VecDeque<Vec<u8>>,
    lost: u64,
}

impl Watch {
    /// Takes the changes since the last call: the keys in order, and the number of earlier changes that were lost because
    /// the queue was full.
    pub fn take(&self) -> (Vec<Vec<u8>>, u64) {
        self.take_some(usize::MAX)
    }

    /// The same, at most `most` keys.
    pub(crate) fn take_some(&self, most: usize) -> (Vec<Vec<u8>>, u64) {
        let mut queue = self.queue.lock();
        let taken = queue.keys.len().min(most);
        (queue.keys.drain(..taken).collect(), std::mem::take(&mut queue.lost))
    }
}

impl Observe for Watch {
    fn push(&self, key: &[u8], _: Option<i64>) -> bool {
        if !key.starts_with(&self.prefix) {
            return false;
        }
        let mut queue = self.queue.lock();
        if queue.keys.len() >= self.capacity {
            queue.keys.pop_front();
            queue.lost += 1;
        }
        queue.keys.push_back(key.to_vec());
        true
    }

    fn wake(&self) {
        (self.wake)();
    }
}

/// A receiver of changed keys.
trait Observe: Send + Sync {
    /// Reports a change of a key's count: `others` is the change of the other actors' count, or `None` when this node's own
    /// count changed. Returns whether the receiver needs a wake-up.
    fn push(&self, key: &[u8], others: Option<i64>) -> bool;

    /// Wakes the receiver: there are changes to read.
    fn wake(&self) {}
}

/// By how much the other actors' count of each key grew since the last read; zero if rows only shrank. A row that shrinks
/// subtracts nothing: in the sum it would hide the growth of another row. Bounded: beyond `capacity` keys it only records
/// that some growth was lost.
#[derive(Debug)]
pub(crate) struct Growth {
    sums: Mutex<Grown>,
    capacity: usize,
    /// Keys that begin with this byte are ignored.
    except: u8,
}

/// What a [`Growth`] has collected.
#[derive(Debug, Default)]
pub(crate) struct Grown {
    /// By how much each key has grown.
    pub(crate) keys: BTreeMap<Vec<u8>, u64>,
    /// Some growth is not in `keys` because there was no room.
    pub(crate) lost: bool,
}

impl Growth {
    /// Takes everything since the last call.
    pub(crate) fn take(&self) -> Grown {
        std::mem::take(&mut *self.sums.lock())
    }

    /// Takes the growth of one key since the last call.
    pub(crate) fn take_of(&self, key: &[u8]) -> u64 {
        self.sums.lock().keys.remove(key).unwrap_or(0)
    }
}

impl Observe for Growth {
    fn push(&self, key: &[u8], others: Option<i64>) -> bool {
        let Some(by) = others.filter(|_| key.first() != Some(&self.except)) else { return false };
        let grown = u64::try_from(by).unwrap_or(0);
        let mut sums = self.sums.lock();
        if let Some(sum) = sums.keys.get_mut(key) {
            *sum = sum.saturating_add(grown);
        } else if sums.keys.len() < self.capacity {
            sums.keys.insert(key.to_vec(), grown);
        } else {
            sums.lost = true;
        }
        false
    }
}

/// The keys whose counts have changed since their reader took them, each once. Bounded: beyond `capacity` keys it only records
/// that some were lost.
#[derive(Debug)]
pub(crate) struct ChangedKeys {
    changed: Mutex<Changed>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Changed {
    keys: BTreeSet<Vec<u8>>,
    lost: bool,
}

impl ChangedKeys {
    /// Number of keys that wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.changed.lock().keys.len()
    }

    /// Takes one key. Returns whether it has changed.
    pub(crate) fn take_one(&self, key: &[u8]) -> bool {
        self.changed.lock().keys.remove(key)
    }

    /// Takes at most `most` changed keys behind `after`, in order.
    pub(crate) fn take_behind(&self, after: Option<&[u8]>, most: usize) -> Vec<Vec<u8>> {
        let mut changed = self.changed.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let taken: Vec<_> = changed.keys.range::<[u8], _>((from, Bound::Unbounded)).take(most).cloned().collect();
        for key in &taken {
            changed.keys.remove(key);
        }
        taken
    }

    /// Returns whether changed keys were lost since the last call.
    pub(crate) fn take_lost(&self) -> bool {
        std::mem::take(&mut self.changed.lock().lost)
    }
}

impl Observe for ChangedKeys {
    fn push(&self, key: &[u8], _: Option<i64>) -> bool {
        let mut changed = self.changed.lock();
        if changed.keys.contains(key) {
            return false;
        }
        if changed.keys.len() < self.capacity {
            changed.keys.insert(key.to_vec());
        } else {
            changed.lost = true;
        }
        false
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// The receivers of changed keys, if there are any.
pub(crate) struct ChangeSink<'a>(Option<OnChange<'a>>);

type OnChange<'a> = &'a mut dyn FnMut(&[u8], Option<i64>);

impl ChangeSink<'_> {
    /// A sink for changes that nothing watches.
    pub(crate) fn discard() -> Self {
        Self(None)
    }

    /// Reports a change of a key's count that is not a change of the other actors' count. It computes the key only if a
    /// watcher exists.
    #[inline]
    pub(crate) fn changed<K: Deref<Target = [u8]>>(&mut self, key: impl FnOnce() -> K) {
        if let Some(tell) = &mut self.0 {
            tell(&key(), None);
        }
    }

    /// Reports that the other actors' count of a key has changed by `by`.
    #[inline]
    pub(crate) fn moved<K: Deref<Target = [u8]>>(&mut self, by: i64, key: impl FnOnce() -> K) {
        if let Some(tell) = &mut self.0 {
            tell(&key(), Some(by));
        }
    }
}

#[derive(Default)]
pub(crate) struct Watchers {
    any: AtomicBool,
    list: Mutex<Vec<Weak<dyn Observe>>>,
}

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchers").finish_non_exhaustive()
    }
}

impl Watchers {
    pub(crate) fn add(&self, capacity: usize, prefix: &[u8], wake: Wake) -> Arc<Watch> {
        let watch = Watch { queue: Mutex::default(), capacity: capacity.max(1), prefix: prefix.to_vec(), wake };
        let watch = Arc::new(watch);
        self.observe(Arc::downgrade(&watch) as Weak<dyn Observe>);
        watch
    }

    /// Collects by how much the other actors' counts grow, for keys that do not begin with `except`, up to `capacity` keys
    /// at a time.
    pub(crate) fn growth(&self, capacity: usize, except: u8) -> Arc<Growth> {
        let growth = Arc::new(Growth { sums: Mutex::default(), capacity, except });
        self.observe(Arc::downgrade(&growth) as Weak<dyn Observe>);
        growth
    }

    /// Collects the keys whose counts change, up to `capacity` keys at a time.
    pub(crate) fn changed_keys(&self, capacity: usize) -> Arc<ChangedKeys> {
        let changed = Arc::new(ChangedKeys { changed: Mutex::default(), capacity });
        self.observe(Arc::downgrade(&changed) as Weak<dyn Observe>);
        changed
    }

    fn observe(&self, observer: Weak<dyn Observe>) {
        self.list.lock().push(observer);
        self.any.store(true, Ordering::Release);
    }

    /// Runs `f` with the sink for changed keys. It costs nothing when there are no watchers.
    pub(crate) fn with_sink<R>(&self, f: impl FnOnce(&mut ChangeSink<'_>) -> R) -> R {
        if !self.any.load(Ordering::Acquire) {
            return f(&mut ChangeSink::discard());
        }
        let mut list = self.list.lock();
        list.retain(|watch| watch.strong_count() > 0);
        self.any.store(!list.is_empty(), Ordering::Release);
        let watching: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        drop(list);
        let mut pushed = vec![false; watching.len()];
        let mut push = |key: &[u8], others: Option<i64>| {
            watching.iter().zip(&mut pushed).for_each(|(watch, pushed)| *pushed |= watch.push(key, others));
        };
        let result = f(&mut ChangeSink(Some(&mut push)));
        watching.iter().zip(pushed).filter(|(_, pushed)| *pushed).for_each(|(watch, _)| watch.wake());
        result
    }
}
