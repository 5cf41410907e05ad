//! Watching a structure: the keys whose counts change, as they change.

use std::collections::VecDeque;
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

    fn push(&self, key: &[u8]) -> bool {
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
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Whom to tell of changed keys, if anybody.
pub(crate) struct Told<'a>(Option<Tell<'a>>);

type Tell<'a> = &'a mut dyn FnMut(&[u8]);

impl Told<'_> {
    /// For changes that nobody is told of.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// The count of a key has changed. The key is looked at only when somebody watches.
    #[inline]
    pub(crate) fn changed<K: Deref<Target = [u8]>>(&mut self, key: impl FnOnce() -> K) {
        if let Some(tell) = &mut self.0 {
            tell(&key());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Watchers {
    any: AtomicBool,
    list: Mutex<Vec<Weak<Watch>>>,
}

impl Watchers {
    pub(crate) fn add(&self, capacity: usize, prefix: &[u8], wake: Wake) -> Arc<Watch> {
        let watch = Watch { queue: Mutex::default(), capacity: capacity.max(1), prefix: prefix.to_vec(), wake };
        let watch = Arc::new(watch);
        self.list.lock().push(Arc::downgrade(&watch));
        self.any.store(true, Ordering::Release);
        watch
    }

    /// Runs `f` with whom it has to tell of every changed key, which costs nothing when nobody watches.
    pub(crate) fn tell<R>(&self, f: impl FnOnce(&mut Told<'_>) -> R) -> R {
        if !self.any.load(Ordering::Acquire) {
            return f(&mut Told::nobody());
        }
        let mut list = self.list.lock();
        list.retain(|watch| watch.strong_count() > 0);
        self.any.store(!list.is_empty(), Ordering::Release);
        let watching: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        drop(list);
        let mut told = vec![false; watching.len()];
        let mut push = |key: &[u8]| {
            watching.iter().zip(&mut told).for_each(|(watch, told)| *told |= watch.push(key));
        };
        let result = f(&mut Told(Some(&mut push)));
        watching.iter().zip(told).filter(|(_, told)| *told).for_each(|(watch, _)| (watch.wake)());
        result
    }
}
