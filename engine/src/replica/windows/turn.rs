//! Series and their windows. The [clock for windows](crate::replica::windows::clock) decides which windows exist.

use std::collections::VecDeque;
use std::sync::Arc;

use tallymesh_schemas::{SeriesName, SeriesSpec, bounds};

use crate::budget::Budget;
use crate::counter::series::Series;
use crate::counter::structure::Structure;
use crate::replica::Replica;
use crate::replica::report::{Event, StructureError};
use crate::replica::timers::Timer;
use crate::replica::windows::maker::{Maker, NewRing};
use crate::time::Now;
use crate::wake::Wake;

impl Replica {
    /// Counts events in windows. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// [`StructureError`] when the series exists, or there are too many windows.
    pub fn replicate_series(&mut self, now: Now, spec: SeriesSpec, wake: Wake) -> Result<Arc<Series>, StructureError> {
        self.read_clock(now);
        if self.windows.named(&spec.name, spec.interval).is_some() {
            return Err(StructureError::DuplicateSeries(spec.name, spec.interval));
        }
        if self.windows.kept() + u64::from(spec.windows) > bounds::WINDOWS as u64 {
            return Err(StructureError::TooManyWindows);
        }
        let current = spec.window_at(self.windows.clock.unix_ms());
        let budget = Arc::new(Budget::new(spec.max_keys));
        let new = NewRing {
            spec: &spec,
            kept: spec.windows,
            budget: &budget,
            wake: &wake,
            known: &[],
            spent: &VecDeque::new(),
        };
        let ring = Maker {
            structures: &mut self.structures,
            actor: &self.runs.actor,
            random: &mut self.random,
            budget: &self.budget,
            changed: self.changes.list(),
            leaving: self.leaving,
        }
        .ring(current, &new);
        let series = Arc::new(Series::new(spec, budget, ring));
        self.windows.add(Arc::clone(&series), wake);
        self.timers.set(Timer::Window, self.windows.next_at());
        Ok(series)
    }

    /// The series in the order of their creation.
    pub fn series(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.windows.series()
    }

    /// The series of a name and interval.
    pub fn series_named(&self, name: &SeriesName, interval: u32) -> Option<&Arc<Series>> {
        self.windows.named(name, interval)
    }

    /// Reads the wall clock, and reports a large step of it.
    pub(crate) fn read_clock(&mut self, now: Now) {
        let step = self.windows.clock.advance(now);
        self.timers.set(Timer::Window, self.windows.next_at());
        let Some(step) = step else { return };
        self.output.counters.clock_steps += 1;
        if step.is_told {
            self.event(Event::ClockStepped { by: step.by, ahead: step.ahead });
        }
    }

    /// Makes the windows whose time comes, and drops those that have aged out.
    pub(crate) fn turn_windows(&mut self, now: Now) {
        self.read_clock(now);
        let mut maker = Maker {
            structures: &mut self.structures,
            actor: &self.runs.actor,
            random: &mut self.random,
            budget: &self.budget,
            changed: self.changes.list(),
            leaving: self.leaving,
        };
        let turned = self.windows.turn(now.mono, &mut maker);
        if !turned.changed {
            return;
        }
        self.timers.set(Timer::Window, self.windows.next_at());
        if turned.stepped {
            // Peers have already reported their progress in returning windows, and this node has dropped those reports: asks
            // again.
            self.peers.repeat_probe();
        }
        turned.dropped.iter().for_each(|window| self.drop_structure(window));
        self.forget_windows();
    }

    /// Removes all bookkeeping about windows that no longer exist.
    fn forget_windows(&mut self) {
        let structures = &self.structures;
        self.peers.forget_structures(|id| structures.contains_key(id));
        self.relay.forget(|(id, _)| !structures.contains_key(id));
        self.output.unheld.forget(|(id, _)| !structures.contains_key(id));
        self.crowded.forget(|(id, _)| !structures.contains_key(id));
    }

    fn drop_structure(&mut self, structure: &Arc<Structure>) {
        let id = structure.id();
        if self.structures.get(&id).is_some_and(|held| Arc::ptr_eq(&held.structure, structure)) {
            self.structures.remove(&id);
            self.changes.forget(id);
        }
    }
}
