//! Log lines for repeated events: the first one at once, then counts, at growing intervals. So a peer cannot fill a log, and an
//! operator still sees that something continues.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use parking_lot::Mutex;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::{Repeated, Reporter};
use tracing::field::{DisplayValue, display};

use crate::counters::Refusal;
use crate::source::Source;

/// Changes of one peer's links that are logged individually within a minute.
const LINK_CHANGES: u32 = 12;

/// Whether a link came up or went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Up,
    Down,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// One of two processes that use one name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rival {
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Incarnation,
}

/// The refused peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    source: Source,
    name: Option<NodeName>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} at {}", self.source),
            None => self.source.fmt(f),
        }
    }
}

/// The addresses of two processes that use one name, the smaller one first.
type Addresses = (SocketAddr, SocketAddr);

/// Writes the log lines that other nodes can cause.
#[derive(Debug)]
pub(crate) struct Reports {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    refused: Reporter<Refused, Refusal>,
    rivals: Reporter<NodeName, Addresses>,
    links: Reporter<NodeName, Change>,
}

impl Default for Reports {
    fn default() -> Self {
        let state = State { refused: Reporter::new(1), rivals: Reporter::new(1), links: Reporter::new(LINK_CHANGES) };
        Self { start: Instant::now(), state: Mutex::new(state) }
    }
}

impl Reports {
    /// A connection was refused.
    pub(crate) fn refused(&self, addr: SocketAddr, name: Option<&NodeName>, refusal: Refusal, detail: &str) {
        let whom = Refused { source: addr.ip().into(), name: name.cloned() };
        let name = name.map(tracing::field::display);
        if self.state.lock().refused.occurred(self.start.elapsed(), &whom, &refusal) {
            tracing::warn!(%addr, name, %refusal, detail, "connection refused");
        } else {
            tracing::debug!(%addr, name, %refusal, detail, "connection refused");
        }
    }

    /// Two processes use one name.
    pub(crate) fn rivals(&self, name: &NodeName, current: Rival, other: Rival) {
        let addresses = (current.addr.min(other.addr), current.addr.max(other.addr));
        if self.state.lock().rivals.occurred(self.start.elapsed(), name, &addresses) {
            tracing::warn!(
                %name, current = %current.addr, run = %current.incarnation, other = %other.addr, other_run = %other.incarnation,
                "two processes use one node name: stop one of them, or give it a name and a certificate of its own"
            );
        }
    }

    /// A link came up or went down. Returns whether to log it.
    pub(crate) fn link(&self, peer: &NodeName, change: Change) -> bool {
        self.state.lock().links.occurred(self.start.elapsed(), peer, &change)
    }

    /// When [`Reports::poll`] is due next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let due = [state.refused.due(), state.rivals.due(), state.links.due()];
        let due = due.into_iter().flatten().min();
        due.map(|due| self.start + due)
    }

    /// Logs the counts that are due.
    pub(crate) fn poll(&self) {
        let now = self.start.elapsed();
        let mut state = self.state.lock();
        while let Some(Repeated { of, times, within }) = state.refused.poll(now) {
            let (whom, refusal) = split(of);
            tracing::warn!(whom, refusal, times, seconds = within.as_secs(), "connections refused again");
        }
        while let Some(Repeated { of, times, within }) = state.rivals.poll(now) {
            let (name, (a, b)) = of.map_or((None, (None, None)), |(name, (a, b))| (Some(name), (Some(a), Some(b))));
            let (name, a, b) = (name.map(display), a.map(display), b.map(display));
            tracing::warn!(name, a, b, times, seconds = within.as_secs(), "two processes still use one node name");
        }
        while let Some(Repeated { of, times, within }) = state.links.poll(now) {
            let (peer, change) = split(of);
            tracing::warn!(
                peer,
                change,
                times,
                seconds = within.as_secs(),
                "links come up and go down again and again"
            );
        }
    }
}

/// Source and kind of a repeated event; nothing for events that found no place in a reporter's table.
fn split<S: fmt::Display, K: fmt::Display>(of: Option<(S, K)>) -> (Option<DisplayValue<S>>, Option<DisplayValue<K>>) {
    of.map_or((None, None), |(source, kind)| (Some(display(source)), Some(display(kind))))
}
