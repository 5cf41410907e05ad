//! When an owner last stated how far its rows reach.

use std::sync::Arc;

use tallymesh_schemas::Version;

use crate::primitive::{AtomicU64, Ordering};
use crate::time::Time;

/// The time of the last digest of a node's run over a link. All copies of the run's rows share it, so a digest confirms every
/// copy that is current without looking at any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// The node has sent a digest.
    pub(crate) fn beat(&self, now: Time) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }
}

/// The owner's last statement about its rows. It stands for each later digest that does not state another head.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) heartbeat: Heartbeat,
    pub(crate) head: Version,
}

impl Statement {
    /// Returns whether this is the statement of that head over that link.
    pub(crate) fn is(&self, heartbeat: &Heartbeat, head: Version) -> bool {
        self.head == head && Arc::ptr_eq(&self.heartbeat.0, &heartbeat.0)
    }
}
