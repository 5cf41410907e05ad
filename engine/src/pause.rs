//! A pause between two attempts. Each next one is twice as long, up to a most.

use std::time::Duration;

use crate::time::Time;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(64);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    length: Duration,
    until: Time,
}

impl Pause {
    pub(crate) fn first(now: Time) -> Self {
        Self { length: FIRST, until: now.after(FIRST) }
    }

    /// The next pause.
    pub(crate) fn next(self, now: Time) -> Self {
        let length = (self.length * 2).min(LONGEST);
        Self { length, until: now.after(length) }
    }

    /// The same pause once more.
    pub(crate) fn again(self, now: Time) -> Self {
        Self { until: now.after(self.length), ..self }
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_most() {
        let (mut now, mut lengths) = (Time(0), Vec::new());
        let mut pause = Pause::first(now);
        for _ in 0..9 {
            lengths.push(pause.length.as_secs());
            assert!(!pause.is_over(now) && pause.is_over(now.after(pause.length)));
            now = now.after(pause.length);
            pause = pause.next(now);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
