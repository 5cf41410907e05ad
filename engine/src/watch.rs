//! Watching a structure: the keys whose counts change, as they change.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::structure::Wake;

/// A bounded queue of changed keys. Dropping the last reference ends the watching.
pub struct Watch {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Only keys that begin like that.
    prefix: Vec<u8>,
    wake: Wake,
}

#[derive(Default)]
struct Queue {
    keys: VecDeque<Vec<u8>>,
    lost: u64,
}

impl Watch {
    /// Takes what has changed since the last call: the keys in order, and how many changes before them were lost because
    /// the queue was full.
    pub fn take(&self) -> (Vec<Vec<u8>>, u64) {
        let mut queue = self.queue.lock();
        (queue.keys.drain(..).collect(), std::mem::take(&mut queue.lost))
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

/// Who is told of changed keys.
trait Observe: Send + Sync {
    /// The count of a key has changed: by so much what the others count, or what this node counts. Whether that is to be looked
    /// at.
    fn push(&self, key: &[u8], others: Option<i64>) -> bool;

    /// There is something to be looked at.
    fn wake(&self) {}
}

/// How much more the others have counted of each key since somebody last asked; zero where rows only shrank. A row that shrinks
/// takes nothing off: in a sum, it would hide another row that grows at the same time. Bounded: beyond `capacity` keys it only
/// notes that it lost some.
#[derive(Debug)]
pub(crate) struct Growth {
    sums: Mutex<Grown>,
    capacity: usize,
    /// Keys that begin with this byte do not matter.
    except: u8,
}

/// What a [`Growth`] has collected.
#[derive(Debug, Default)]
pub(crate) struct Grown {
    /// By how much each key has grown.
    pub(crate) keys: BTreeMap<Vec<u8>, u64>,
    /// Some growth is not in `keys`: there was no room.
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

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Whom to tell of changed keys, if anybody.
pub(crate) struct ChangeSink<'a>(Option<OnChange<'a>>);

type OnChange<'a> = &'a mut dyn FnMut(&[u8], Option<i64>);

impl ChangeSink<'_> {
    /// For changes that nobody is told of.
    pub(crate) fn discard() -> Self {
        Self(None)
    }

    /// The count of a key has changed, and not because of what the others count. The key is looked at only when somebody
    /// watches.
    #[inline]
    pub(crate) fn changed<K: Deref<Target = [u8]>>(&mut self, key: impl FnOnce() -> K) {
        if let Some(tell) = &mut self.0 {
            tell(&key(), None);
        }
    }

    /// What the others count of a key has changed by `by`.
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

    /// Collects how much the others count more of keys that do not begin with `except`, up to `capacity` keys at a time.
    pub(crate) fn growth(&self, capacity: usize, except: u8) -> Arc<Growth> {
        let growth = Arc::new(Growth { sums: Mutex::default(), capacity, except });
        self.observe(Arc::downgrade(&growth) as Weak<dyn Observe>);
        growth
    }

    fn observe(&self, observer: Weak<dyn Observe>) {
        self.list.lock().push(observer);
        self.any.store(true, Ordering::Release);
    }

    /// Runs `f` with whom it has to tell of every changed key, which costs nothing when nobody watches.
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
