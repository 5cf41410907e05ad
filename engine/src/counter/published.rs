//! What a structure publishes for readers that do not take the ledger lock.

use std::sync::Arc;

use tallymesh_schemas::StructureId;

use crate::primitive::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Time;

/// The structures of a replica that have changed since the replica last took the list. A structure lists itself once.
#[derive(Debug, Default)]
pub(crate) struct Changed(Mutex<Vec<StructureId>>);

impl Changed {
    pub(super) fn list(&self, id: StructureId) {
        self.0.lock().push(id);
    }

    pub(crate) fn take(&self) -> Vec<StructureId> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The changes of one structure.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(super) list: Arc<Changed>,
    /// The structure is on the list.
    pub(super) is_listed: AtomicBool,
    /// The mark of the last change.
    pub(super) last: AtomicU64,
    /// The highest mark that a reader has reached.
    pub(super) read: AtomicU64,
}

impl Changes {
    pub(crate) fn new(list: &Arc<Changed>) -> Self {
        let (is_listed, last, read) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { list: Arc::clone(list), is_listed, last, read }
    }
}

/// How many actors count in a structure, and when the stalest of them was last confirmed as current.
#[derive(Debug)]
pub(crate) struct Freshness {
    pub(super) counted: AtomicU32,
    pub(super) stalest: AtomicU64,
    /// When a read computes it again.
    pub(super) again: AtomicU64,
}

impl Freshness {
    /// That of a structure with this node's actor only.
    pub(crate) fn new() -> Self {
        Self { counted: AtomicU32::new(1), stalest: AtomicU64::new(Time::NEVER.0), again: AtomicU64::new(0) }
    }

    /// The next read computes it again.
    pub(crate) fn expire(&self) {
        self.again.store(0, Ordering::Relaxed);
    }
}
