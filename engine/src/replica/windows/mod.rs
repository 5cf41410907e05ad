//! The series of a replica, and the clock that numbers their windows.

pub(crate) mod clock;
mod turn;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Window, bounds};

use crate::counter::series::Series;
use crate::counter::structure::Structure;
use crate::time::Time;
use crate::wake::Wake;

/// A series and the data to make its next window.
pub(crate) struct HeldSeries {
    pub(crate) series: Arc<Series>,
    pub(crate) wake: Wake,
    /// Windows with counts that a large step of the clock has removed from the ring. They return if the clock steps back.
    pub(crate) aside: Vec<Aside>,
    /// Windows that were dropped with counts of this node, the oldest first. Other nodes may still hold these counts. So a
    /// window that comes a second time is not shared: its new rows would have the versions of the old ones.
    pub(crate) spent: VecDeque<Window>,
}

/// A window that this node keeps in case the clock steps back.
pub(crate) struct Aside {
    pub(crate) number: Window,
    pub(crate) window: Arc<Structure>,
    /// The time by which the window has aged out, whatever the clock shows.
    pub(crate) until: Time,
}

/// How many windows are remembered as spent: as many as another node may still hold.
const SPENT: usize = *bounds::MONITOR_WINDOWS.end() as usize;

impl HeldSeries {
    pub(crate) fn new(series: Arc<Series>, wake: Wake) -> Self {
        Self { series, wake, aside: Vec::new(), spent: VecDeque::new() }
    }

    /// Records that a window is dropped.
    pub(crate) fn note_dropped(&mut self, number: Window, window: &Structure) {
        if window.head() > 0 && number <= self.series.current() {
            if self.spent.len() == SPENT {
                self.spent.pop_front();
            }
            self.spent.push_back(number);
        }
    }

    /// How long a window outside the ring is kept.
    pub(crate) fn life(&self) -> Duration {
        let spec = self.series.spec();
        Duration::from_millis(spec.interval_ms().saturating_mul(u64::from(spec.windows) + 1))
    }

    /// Whether the change between two windows may be a clock step that can be reversed. The clock never goes back after a small
    /// step.
    pub(crate) fn is_step(&self, from: Window, to: Window) -> bool {
        let longest = self.series.spec().interval_ms().saturating_mul(from.abs_diff(to).saturating_add(1));
        to < from || (to - from > 1 && Duration::from_millis(longest) > bounds::MAX_DRIFT)
    }
}

impl std::fmt::Debug for HeldSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.series.fmt(f)
    }
}

/// The existing windows of a series when its ring turns.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) windows: Vec<Arc<Structure>>,
    pub(crate) spent: BTreeSet<Window>,
}
