//! The queue of events to poll. A node that causes an event many times causes few entries: the first event is queued, and the
//! repeated ones are counted and queued as one [`Event::Repeated`] about once a minute.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::{NodeName, Repeated, Reporter, StructureName, bounds};

use crate::replica::report::{Event, EventKind};
use crate::time::Time;

/// Changes of one node's life that are queued one by one before they are counted: a restart causes three or four.
const LIVES: u32 = 8;

/// The kind of an event that a node causes, and its structure.
type Kind = (EventKind, Option<StructureName>);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Events {
    queue: VecDeque<Event>,
    reporter: Reporter<NodeName, Kind>,
    lives: Reporter<NodeName, Kind>,
    /// Forgotten nodes: the caller that keeps connections has to act on each.
    forgotten: BTreeSet<NodeName>,
    tally: Arc<bound::Tally>,
}

impl Events {
    pub(crate) fn new(tally: Arc<bound::Tally>) -> Self {
        let (reporter, lives) = (Reporter::new(1), Reporter::new(LIVES));
        Self { queue: VecDeque::new(), reporter, lives, forgotten: BTreeSet::new(), tally }
    }

    /// Queues an event, or counts it.
    pub(crate) fn push(&mut self, now: Time, event: Event) {
        if let Event::Forgotten { node } = &event {
            self.forgotten.insert(node.clone());
        }
        let queued = match event.cause() {
            None => true,
            Some((node, kind)) => {
                let reporter = if kind == EventKind::Life { &mut self.lives } else { &mut self.reporter };
                reporter.occurred(since_start(now), node, &(kind, event.structure().cloned()))
            }
        };
        if queued {
            self.queue(event);
        }
    }

    /// Queues the summaries of counted events that are due.
    pub(crate) fn summarize(&mut self, now: Time) {
        let now = since_start(now);
        while let Some(repeated) = self.reporter.poll(now).or_else(|| self.lives.poll(now)) {
            let Repeated { of, times, within } = repeated;
            let (node, kind, structure) = match of {
                Some((node, (kind, structure))) => (Some(node), Some(kind), structure),
                None => (None, None, None),
            };
            self.queue(Event::Repeated { node, kind, structure, times, within });
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(crate) fn pop_forgotten(&mut self) -> Option<NodeName> {
        self.forgotten.pop_first()
    }

    /// If the caller does not poll, the oldest events are dropped first: events are meant for people.
    fn queue(&mut self, event: Event) {
        if self.queue.len() >= bounds::EVENTS {
            self.queue.pop_front();
            self.tally.reached(Bound::Events);
        }
        self.queue.push_back(event);
    }
}

fn since_start(now: Time) -> Duration {
    Duration::from_micros(now.0)
}
