//! A series with the windows that are outside of its ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Version, Window, bounds};

use crate::counter::series::{Ring, Series};
use crate::counter::structure::Structure;
use crate::replica::windows::maker::{Maker, NewRing};
use crate::time::Time;
use crate::wake::Wake;

/// A series and the data to make its next window.
pub(crate) struct HeldSeries {
    pub(crate) series: Arc<Series>,
    wake: Wake,
    /// Windows with counts that a large step of the clock has removed from the ring. They return if the clock steps back.
    aside: Vec<Aside>,
    /// Windows that were dropped with counts of this node, the oldest first. Other nodes may still hold these counts. So a
    /// window that comes a second time is not shared: its new rows would have the versions of the old ones.
    spent: VecDeque<Window>,
}

/// A window that this node keeps in case the clock steps back.
struct Aside {
    number: Window,
    window: Arc<Structure>,
    /// The time by which the window has aged out, whatever the clock shows.
    until: Time,
}

/// What the turns of rings have changed.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    /// A ring has turned, or a window outside of the rings has aged out.
    pub(crate) changed: bool,
    /// A ring has followed a step of the clock.
    pub(crate) stepped: bool,
    /// The windows that do not belong to their series any more.
    pub(crate) dropped: Vec<Arc<Structure>>,
}

/// How many windows are remembered as spent: as many as another node may still hold.
const SPENT: usize = *bounds::MONITOR_WINDOWS.end() as usize;

impl HeldSeries {
    pub(crate) fn new(series: Arc<Series>, wake: Wake) -> Self {
        Self { series, wake, aside: Vec::new(), spent: VecDeque::new() }
    }

    /// Turns the ring to another window.
    pub(crate) fn turn(&mut self, now: Time, current: Window, maker: &mut Maker<'_>, turned: &mut Turned) {
        let series = Arc::clone(&self.series);
        let ring = series.ring();
        let next = self.next_ring(&ring, current, maker);
        let is_kept = |window: &Arc<Structure>| next.windows.iter().any(|kept| Arc::ptr_eq(window, kept));
        self.aside.retain(|aside| !is_kept(&aside.window));
        // The next window is the first of the ring.
        let numbered = ring.windows.iter().enumerate();
        let numbered = numbered.map(|(at, window)| ((ring.current + 1).saturating_sub(at as u64), window));
        let gone: Vec<_> = numbered.filter(|(_, window)| !is_kept(window)).collect();
        series.turn(next);
        let (step, until) = (self.is_step(ring.current, current), now.after(self.life()));
        for (number, window) in gone {
            let counts = window.held().iter().any(|held| held.applied > Version::ZERO) || window.pending() > 0;
            if step && counts && self.aside.len() <= series.kept() as usize {
                self.aside.push(Aside { number, window: Arc::clone(window), until });
            } else {
                self.note_dropped(number, window);
                turned.dropped.push(Arc::clone(window));
            }
        }
        turned.changed = true;
        turned.stepped |= step;
    }

    /// Whether the ring has as many windows as the series keeps, and the next one.
    pub(super) fn fits(&self) -> bool {
        let ring = self.series.ring();
        // Before the first windows there are none.
        let kept = u64::from(self.series.kept()).min(ring.current.saturating_add(1));
        ring.windows.len() as u64 == kept + 1
    }

    /// The ring around `current`. It takes the windows of the old ring, and those that were put aside.
    fn next_ring(&self, ring: &Ring, current: Window, maker: &mut Maker<'_>) -> Ring {
        let known: Vec<_> = ring.windows.iter().chain(self.aside.iter().map(|aside| &aside.window)).cloned().collect();
        let (spec, kept, budget) = (self.series.spec(), self.series.kept(), self.series.budget());
        maker.ring(current, &NewRing { spec, kept, budget, wake: &self.wake, known: &known, spent: &self.spent })
    }

    /// Drops the windows outside the ring whose time is over.
    pub(crate) fn drop_expired(&mut self, now: Time, turned: &mut Turned) {
        let expired: Vec<_> = self.aside.extract_if(.., |aside| aside.until <= now).collect();
        for Aside { number, window, .. } in expired {
            self.note_dropped(number, &window);
            turned.changed = true;
            turned.dropped.push(window);
        }
    }

    /// Records that a window is dropped.
    fn note_dropped(&mut self, number: Window, window: &Structure) {
        if window.head() > Version::ZERO && number <= self.series.current() {
            if self.spent.len() == SPENT {
                self.spent.pop_front();
            }
            self.spent.push_back(number);
        }
    }

    /// How long a window outside the ring is kept.
    fn life(&self) -> Duration {
        let spec = self.series.spec();
        Duration::from_millis(spec.interval_ms().saturating_mul(u64::from(self.series.kept()) + 1))
    }

    /// Whether the change between two windows may be a clock step that can be reversed. The clock never goes back after a small
    /// step.
    fn is_step(&self, from: Window, to: Window) -> bool {
        let longest = self.series.spec().interval_ms().saturating_mul(from.abs_diff(to).saturating_add(1));
        to < from || (to - from > 1 && Duration::from_millis(longest) > bounds::MAX_DRIFT)
    }
}

impl std::fmt::Debug for HeldSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.series.fmt(f)
    }
}
