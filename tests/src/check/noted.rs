//! Changes of a process that the ground truth has to know: another run, and windows that begin.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bounds;

use crate::check::windows::taken_along;
use crate::node::{Process, events};
use crate::truth::Truth;

impl Process {
    /// Records that the replica may have taken another incarnation.
    pub(crate) fn note_actor(&mut self, truth: &mut Truth) -> Result<(), String> {
        if self.actor == *self.replica.actor() {
            return Ok(());
        }
        let was = std::mem::replace(&mut self.actor, self.replica.actor().clone());
        truth.also(self.run, self.actor.clone());
        if let Some(sim) = self.caches.values().next() {
            sim.writes.borrow_mut().contest(truth.sharing(&self.actor).iter().copied());
        }
        taken_along(self, &was, truth)
    }

    /// Records new windows of series. Returns how many have begun. A small step back of the clock brings none back.
    pub(crate) fn note_windows(&mut self, truth: &mut Truth) -> Result<usize, String> {
        let mut turned = 0;
        let known = self.windows_seen.len();
        for (at, series) in self.replica.series().enumerate() {
            let current = series.current();
            let Some(seen) = self.windows_seen.get_mut(at) else {
                self.windows_seen.push(current);
                continue;
            };
            let back = series.spec().interval_ms().saturating_mul(seen.saturating_sub(current).saturating_add(1));
            if current < *seen && Duration::from_millis(back) < bounds::MAX_DRIFT {
                return Err(format!("{}: window {current} comes a second time, behind {seen}", series.spec().name));
            }
            turned += usize::from(current != *seen);
            *seen = current;
        }
        if turned > 0 || known < self.windows_seen.len() {
            let before = std::mem::replace(&mut self.windows, events(&self.replica));
            let mut there: BTreeSet<_> = self.replica.structures().iter().map(|structure| structure.id()).collect();
            for window in &self.windows {
                if !before.iter().any(|known| Arc::ptr_eq(known, window)) {
                    truth.begin_anew(self.run, &window.spec().name);
                    there.remove(&window.id());
                }
            }
            self.seen.forget(|structure| there.contains(&structure));
        }
        Ok(turned)
    }
}
