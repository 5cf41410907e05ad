//! The latest stamps that a replica of a cache has received or given.

use tallymesh_schemas::UnixMs;

use crate::hlc::Stamp;

/// Spans of which the latest stamp is kept.
const SPANS: usize = 128;

/// The length of a span. It is much shorter than the drift, so a span that reaches into the future has nothing that all others
/// accept.
const SPAN_MS: u64 = 30_000;

/// The latest stamp of each span of time in which a stamp lies that was received or given lately: whichever of them turn out to
/// be of the future, the latest of the others is known.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// In order of the last note.
    latest: Vec<Stamp>,
}

impl Received {
    #[inline]
    pub(crate) fn note(&mut self, stamp: Stamp) {
        match self.latest.last_mut() {
            Some(last) if span(*last) == span(stamp) => *last = stamp.max(*last),
            _ => self.note_in_another_span(stamp),
        }
    }

    fn note_in_another_span(&mut self, stamp: Stamp) {
        let known = self.latest.iter().position(|known| span(*known) == span(stamp));
        let latest = known.map(|at| self.latest.remove(at)).unwrap_or_default();
        if self.latest.len() >= SPANS {
            self.latest.remove(0);
        }
        self.latest.push(stamp.max(latest));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Stamp> {
        self.latest.iter().copied()
    }
}

fn span(stamp: Stamp) -> u64 {
    let UnixMs(unix_ms) = stamp.unix_ms();
    unix_ms / SPAN_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many stamps of the future come, what came lately and is not of the future is known.
    #[test]
    fn stamps_of_the_future_hide_no_present_ones() {
        let (now, mut received) = (1_000_000_000_000, Received::default());
        for later in (0..500).map(|n| n * SPAN_MS) {
            received.note(Stamp::at(UnixMs(now + 130_000 + later)));
            received.note(Stamp::at(UnixMs(now + later)));
            received.note(Stamp::at(UnixMs(now + later - 10)));
            let present = received.iter().filter(|stamp| stamp.unix_ms() <= UnixMs(now + later + 60_000));
            let latest = present.max().map(Stamp::unix_ms);
            assert!(latest.is_some_and(|latest| latest >= UnixMs(now + later)), "{latest:?}");
        }
        assert_eq!(received.iter().count(), SPANS);
    }
}
