//! The timers of the membership protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::membership::protocol::Time;

/// A lateness that a busy node does not reach: the process was stopped, or its machine slept.
const STOPPED: Duration = Duration::from_secs(2);

/// Timers in the order of their due times; of two with the same time, the one set first comes first.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    queue: BTreeMap<(Time, u64), T>,
    set: u64,
}

impl<T> Timers<T> {
    pub(crate) fn new() -> Self {
        Self { queue: BTreeMap::new(), set: 0 }
    }

    /// Sets a timer.
    pub(crate) fn set(&mut self, at: Time, timer: T) {
        self.set += 1;
        self.queue.insert((at, self.set), timer);
    }

    /// When the first timer is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first timer if it is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<T> {
        self.next().filter(|at| *at <= now)?;
        self.queue.pop_first().map(|(_, timer)| timer)
    }

    /// Postpones all timers after a pause in which this process did not run. Missing answers in that time say nothing about the
    /// other nodes.
    pub(crate) fn forgive_stop(&mut self, now: Time) {
        let Some(late) = self.next().map(|next| now.saturating_sub(next)).filter(|late| *late > STOPPED) else {
            return;
        };
        self.queue = std::mem::take(&mut self.queue).into_iter().map(|((at, set), t)| ((at + late, set), t)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn timers_come_in_order() {
        let mut timers = Timers::new();
        timers.set(secs(3), 'c');
        timers.set(secs(1), 'a');
        timers.set(secs(1), 'b');
        assert_eq!(timers.pop(Duration::ZERO), None);
        let due: Vec<char> = std::iter::from_fn(|| timers.pop(secs(2))).collect();
        assert_eq!(due, ['a', 'b']);
        assert_eq!(timers.next(), Some(secs(3)));
    }

    #[test]
    fn a_stop_puts_everything_off_and_a_delay_does_not() {
        let mut timers = Timers::new();
        timers.set(secs(1), 'a');
        timers.set(secs(5), 'b');
        timers.forgive_stop(secs(3));
        assert_eq!(timers.next(), Some(secs(1)));
        timers.forgive_stop(secs(60));
        assert_eq!(timers.pop(secs(60)), Some('a'));
        assert_eq!(timers.next(), Some(secs(64)));
    }
}
