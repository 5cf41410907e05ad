//! What a replica reports: events, counters, and what did not fit within a bound.

use std::sync::Arc;

use tallymesh_schemas::NodeName;
use tallymesh_schemas::bound::{self, Bound};

use crate::replica::events::Events;
use crate::replica::report::{Counters, Event};
use crate::replica::stream::StreamId;
use crate::replica::unheld::Unheld;
use crate::time::Time;

/// The reports of a replica.
#[derive(Debug)]
pub(crate) struct Output {
    events: Events,
    pub(crate) counters: Counters,
    /// The bounds that were reached, except those of structures, which count their own.
    pub(crate) tally: Arc<bound::Tally>,
    /// What is not held here because a bound was reached.
    pub(crate) unheld: Unheld,
}

impl Output {
    pub(crate) fn new() -> Self {
        let tally = Arc::<bound::Tally>::default();
        let events = Events::new(Arc::clone(&tally));
        Self { events, counters: Counters::default(), tally, unheld: Unheld::default() }
    }

    pub(crate) fn event(&mut self, now: Time, event: Event) {
        self.events.push(now, event);
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    pub(crate) fn pop_forgotten(&mut self) -> Option<NodeName> {
        self.events.pop_forgotten()
    }

    /// Queues the summaries of counted events that are due.
    pub(crate) fn summarize(&mut self, now: Time) {
        self.events.summarize(now);
    }

    /// A peer reports a run that has no place here.
    pub(crate) fn note_unheld_run(&mut self, part: StreamId) {
        self.unheld.part(part);
    }

    /// `reporter` reports a node that has no place here.
    pub(crate) fn note_unheld_node(&mut self, node: &NodeName, reporter: &NodeName) {
        self.tally.reached(Bound::Nodes);
        self.unheld.node(node, reporter);
    }
}
