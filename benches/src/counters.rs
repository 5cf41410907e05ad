//! Counters by string key, ours and the peers', behind one trait. All of them hash with foldhash.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crdts::{CmRDT, PNCounter};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use tallymesh_engine::Structure;

/// Counters by key that threads share.
pub trait Counters: Sync {
    /// Adds to a key's counter; one that is not there becomes so.
    fn add(&self, key: &str, n: i64);
}

impl Counters for Arc<Structure> {
    fn add(&self, key: &str, n: i64) {
        // Refused keys would show in the sums that the benches check.
        let _ = Structure::add(self, key.as_bytes(), n);
    }
}

/// DashMap with an atomic a key.
pub type Dash = DashMap<String, AtomicI64, FixedState>;

impl Counters for Dash {
    fn add(&self, key: &str, n: i64) {
        if let Some(counter) = self.get(key) {
            counter.fetch_add(n, Ordering::Relaxed);
            return;
        }
        self.entry(key.to_owned()).or_default().fetch_add(n, Ordering::Relaxed);
    }
}

/// Papaya's map with an atomic a key.
pub struct Papaya(papaya::HashMap<String, AtomicI64, FixedState>);

impl Default for Papaya {
    fn default() -> Self {
        // Incremental resizing would leave half of the keys in the old table, as nothing is inserted any more.
        let map = papaya::HashMap::builder().hasher(FixedState::default()).resize_mode(papaya::ResizeMode::Blocking);
        Self(map.build())
    }
}

impl fmt::Debug for Papaya {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Papaya")
    }
}

impl Counters for Papaya {
    fn add(&self, key: &str, n: i64) {
        let map = self.0.pin();
        match map.get(key) {
            Some(counter) => counter.fetch_add(n, Ordering::Relaxed),
            None => map.get_or_insert_with(key.to_owned(), AtomicI64::default).fetch_add(n, Ordering::Relaxed),
        };
    }
}

/// scc's map with an atomic a key.
#[derive(Debug, Default)]
pub struct Scc(scc::HashMap<String, AtomicI64, FixedState>);

impl Counters for Scc {
    fn add(&self, key: &str, n: i64) {
        let found = self.0.read_sync(key, |_, counter| counter.fetch_add(n, Ordering::Relaxed));
        if found.is_none() {
            self.0.entry_sync(key.to_owned()).or_default().get().fetch_add(n, Ordering::Relaxed);
        }
    }
}

/// `crdts`' PNCounter a key, in DashMap, as one who shares them between threads would.
#[derive(Debug, Default)]
pub struct Crdts(DashMap<String, PNCounter<u8>, FixedState>);

impl Counters for Crdts {
    fn add(&self, key: &str, n: i64) {
        let step = |counter: &mut PNCounter<u8>| {
            let op = if n < 0 { counter.dec_many(0, n.unsigned_abs()) } else { counter.inc_many(0, n.unsigned_abs()) };
            counter.apply(op);
        };
        if let Some(mut counter) = self.0.get_mut(key) {
            return step(&mut counter);
        }
        step(&mut self.0.entry(key.to_owned()).or_default());
    }
}
