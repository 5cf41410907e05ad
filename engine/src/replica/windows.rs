//! The windows of series. The [clock for windows](crate::replica::window_clock) decides which exist.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{SeriesName, SeriesSpec, StructureId, Window, bounds};

use crate::counter::series::{Ring, Series};
use crate::counter::structure::Structure;
use crate::replica::report::{Event, StructureError};
use crate::replica::{Held, Replica};
use crate::time::{Now, Time};
use crate::wake::Wake;

/// A series and the data to make its next window.
pub(super) struct HeldSeries {
    series: Arc<Series>,
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

/// How many windows are remembered as spent: as many as another node may still hold.
const SPENT: usize = *bounds::MONITOR_WINDOWS.end() as usize;

impl HeldSeries {
    fn new(series: Arc<Series>, wake: Wake) -> Self {
        Self { series, wake, aside: Vec::new(), spent: VecDeque::new() }
    }

    /// Records that a window is dropped.
    fn note_dropped(&mut self, number: Window, window: &Structure) {
        if window.head() > 0 && number <= self.series.current() {
            if self.spent.len() == SPENT {
                self.spent.pop_front();
            }
            self.spent.push_back(number);
        }
    }

    /// How long a window outside the ring is kept.
    fn life(&self) -> Duration {
        let spec = self.series.spec();
        Duration::from_millis(spec.interval_ms().saturating_mul(u64::from(spec.windows) + 1))
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

/// The existing windows of a series when its ring turns.
#[derive(Default)]
struct Known {
    windows: Vec<Arc<Structure>>,
    spent: BTreeSet<Window>,
}

impl Replica {
    /// Counts events in windows. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// [`StructureError`] when the series exists, or there are too many windows.
    pub fn replicate_series(&mut self, now: Now, spec: SeriesSpec, wake: Wake) -> Result<Arc<Series>, StructureError> {
        self.read_clock(now);
        if self.series_named(&spec.name, spec.interval).is_some() {
            return Err(StructureError::DuplicateSeries(spec.name, spec.interval));
        }
        let kept: u64 = self.series.iter().map(|held| u64::from(held.series.spec().windows)).sum();
        if kept + u64::from(spec.windows) > bounds::WINDOWS as u64 {
            return Err(StructureError::TooManyWindows);
        }
        let current = spec.window_at(self.clock.unix_ms());
        let ring = self.ring(&spec, &wake, current, &Known::default());
        let series = Arc::new(Series::new(spec, ring));
        self.series.push(HeldSeries::new(Arc::clone(&series), wake));
        Ok(series)
    }

    /// The series in the order of their creation.
    pub fn series(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.series.iter().map(|held| &held.series)
    }

    /// The series of a name and interval.
    pub fn series_named(&self, name: &SeriesName, interval: u32) -> Option<&Arc<Series>> {
        self.series().find(|series| series.spec().name == *name && series.spec().interval == interval)
    }

    /// The windows around `current`. Existing ones are taken from `known`.
    fn ring(&mut self, spec: &SeriesSpec, wake: &Wake, current: Window, known: &Known) -> Ring {
        let oldest = current.saturating_sub(u64::from(spec.windows.saturating_sub(1)));
        let windows = (oldest..=current.saturating_add(1)).rev().map(|window| {
            let structure = spec.structure(window);
            let held = known.windows.iter().find(|held| held.spec().name == structure.name);
            held.cloned().unwrap_or_else(|| {
                let made =
                    Arc::new(Structure::new(structure, self.actor.clone(), self.random.next(), Arc::clone(wake)));
                if self.leaving {
                    made.close();
                }
                let shared = spec.replicate && !known.spent.contains(&window);
                let held = Held { persists: spec.persist, ..Held::new(Arc::clone(&made), false, shared) };
                // The chance that the id is taken is 1 in 2^64. The window then counts, and is not shared.
                self.structures.entry(made.id()).or_insert(held);
                made
            })
        });
        Ring { current, windows: windows.collect() }
    }

    /// Reads the wall clock, and reports a large step of it.
    pub(super) fn read_clock(&mut self, now: Now) {
        let Some(step) = self.clock.advance(now) else { return };
        self.counters.clock_steps += 1;
        if step.is_told {
            self.event(Event::ClockStepped { by: step.by, ahead: step.ahead });
        }
    }

    /// Makes the windows whose time comes, and drops those that have aged out.
    pub(super) fn turn_windows(&mut self, now: Now) {
        self.read_clock(now);
        let unix_ms = self.clock.unix_ms();
        let mut list = std::mem::take(&mut self.series);
        let mut dropped = false;
        for held in &mut list {
            let current = held.series.spec().window_at(unix_ms);
            if current != held.series.current() {
                self.turn(now, held, current);
                dropped = true;
            }
            dropped |= self.drop_expired(now, held);
        }
        self.series = list;
        if dropped {
            self.forget_windows();
        }
    }

    /// Turns the ring of one series to another window.
    fn turn(&mut self, now: Now, held: &mut HeldSeries, current: Window) {
        let (series, wake) = (Arc::clone(&held.series), Arc::clone(&held.wake));
        let ring = series.ring();
        let spec = series.spec();
        let (was, until) = (ring.current, now.mono.after(held.life()));
        let step = held.is_step(was, current);
        let windows = ring.windows.iter().chain(held.aside.iter().map(|aside| &aside.window)).cloned().collect();
        let next = self.ring(spec, &wake, current, &Known { windows, spent: held.spent.iter().copied().collect() });
        let is_kept = |window: &Arc<Structure>| next.windows.iter().any(|kept| Arc::ptr_eq(window, kept));
        held.aside.retain(|aside| !is_kept(&aside.window));
        // The next window is the first of the ring.
        let numbered =
            ring.windows.iter().enumerate().map(|(at, window)| ((was + 1).saturating_sub(at as u64), window));
        let gone: Vec<_> = numbered.filter(|(_, window)| !is_kept(window)).collect();
        series.turn(next);
        if step {
            // Peers have already reported their progress in returning windows, and this node has dropped those reports: asks
            // again.
            for link in self.links.values_mut() {
                link.probe.get_or_insert(self.nonce);
            }
        }
        for (number, window) in gone {
            let counts = window.held().iter().any(|held| held.applied > 0) || window.pending() > 0;
            if step && counts && held.aside.len() <= spec.windows as usize {
                held.aside.push(Aside { number, window: Arc::clone(window), until });
            } else {
                held.note_dropped(number, window);
                self.drop_structure(window);
            }
        }
    }

    /// Drops the windows outside the ring whose time is over. Returns whether there were any.
    fn drop_expired(&mut self, now: Now, held: &mut HeldSeries) -> bool {
        let expired: Vec<_> = held.aside.extract_if(.., |aside| aside.until <= now.mono).collect();
        for Aside { number, window, .. } in &expired {
            held.note_dropped(*number, window);
            self.drop_structure(window);
        }
        !expired.is_empty()
    }

    /// Removes all bookkeeping about windows that no longer exist.
    fn forget_windows(&mut self) {
        let structures = &self.structures;
        for link in self.links.values_mut() {
            link.forget(|(id, _)| !structures.contains_key(id));
            link.digest_marks.retain(|id, _| structures.contains_key(id));
            link.hurry();
        }
        self.parents.retain(|(id, _), _| structures.contains_key(id));
        self.forwarded.retain(|(id, _)| structures.contains_key(id));
        self.wanted_history.retain(|(id, _)| structures.contains_key(id));
        self.awaiting_values.retain(|(id, _), _| structures.contains_key(id));
        self.unheld.forget(|(id, _)| !structures.contains_key(id));
    }

    fn drop_structure(&mut self, structure: &Arc<Structure>) {
        let id: StructureId = structure.id();
        if self.structures.get(&id).is_some_and(|held| Arc::ptr_eq(&held.structure, structure)) {
            self.structures.remove(&id);
        }
    }

    /// The time when the next window begins.
    pub(super) fn next_window(&self) -> Time {
        let begins =
            self.series().map(|series| series.current().saturating_add(1).saturating_mul(series.spec().interval_ms()));
        begins.min().map_or(Time::NEVER, |begins| self.clock.when(begins))
    }
}
