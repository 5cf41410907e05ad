//! The windows of series. The [clock for windows](crate::replica::windows::clock) decides which exist.

use std::sync::Arc;

use tallymesh_schemas::{SeriesName, SeriesSpec, StructureId, Window, bounds};

use crate::counter::series::{Ring, Series};
use crate::counter::structure::Structure;
use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::report::{Event, StructureError};
use crate::replica::windows::{Aside, HeldSeries, Known};
use crate::time::{Now, Time};
use crate::wake::Wake;

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
    pub(crate) fn read_clock(&mut self, now: Now) {
        let Some(step) = self.clock.advance(now) else { return };
        self.counters.clock_steps += 1;
        if step.is_told {
            self.event(Event::ClockStepped { by: step.by, ahead: step.ahead });
        }
    }

    /// Makes the windows whose time comes, and drops those that have aged out.
    pub(crate) fn turn_windows(&mut self, now: Now) {
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
    pub(crate) fn next_window(&self) -> Time {
        let begins =
            self.series().map(|series| series.current().saturating_add(1).saturating_mul(series.spec().interval_ms()));
        begins.min().map_or(Time::NEVER, |begins| self.clock.when(begins))
    }
}
