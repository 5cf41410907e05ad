//! Output: messages, the next timeout, and events.

use tallymesh_schemas::NodeName;

use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::peer::transmit::Transmission;
use crate::replica::report::Event;
use crate::time::Time;

impl Replica {
    /// Appends the next message for a peer to `buf`; `false` when there is none. Call it only while the link has room: the
    /// replica queues cursors, not messages, so a slow peer gets newer states, and fewer of them.
    pub fn poll_transmit(&mut self, peer: &NodeName, buf: &mut Vec<u8>) -> bool {
        let Some(link) = self.peers.links.get_mut(peer) else { return false };
        let of_caches = self.caches.has_something(peer);
        if !link.has_something() && !of_caches && (!self.leaving || link.said_goodbye) {
            return false;
        }
        // The answer to a probe must follow the entries that it reports. Otherwise rows and entries take turns.
        if of_caches && (link.is_answering() || link.take_turn()) && self.next_of_caches(peer, buf) {
            return true;
        }
        let Some(link) = self.peers.links.get_mut(peer) else { return false };
        if link.has_something() && self.next_of_rows(peer, buf) {
            return true;
        }
        if self.next_of_caches(peer, buf) {
            return true;
        }
        self.next_of_rows(peer, buf)
    }

    /// Appends the next message that is not about caches.
    fn next_of_rows(&mut self, peer: &NodeName, buf: &mut Vec<u8>) -> bool {
        let Some(link) = self.peers.links.get_mut(peer) else { return false };
        let is_last = !self.caches.has_something(peer);
        let mut transmission = Transmission {
            structures: &self.structures,
            changes: &mut self.changes,
            runs: &self.runs,
            output: &mut self.output,
            delta_bytes: self.config.delta_bytes,
            clock_ms: self.windows.clock.unix_ms(),
            now: self.now,
            leaving: self.leaving && is_last,
        };
        transmission.next(link, buf)
    }

    /// The latest time to call [`Replica::handle_timeout`].
    pub fn poll_timeout(&self) -> Time {
        let flushes = self.structures.values().filter(|held| held.waits()).map(Held::due);
        flushes.fold(self.timers.next(), Time::min).min(self.caches.next_flush())
    }

    /// The next event for the operator. If one node causes an event repeatedly, it comes once, and then as [`Event::Repeated`]
    /// about once a minute.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.output.pop_event()
    }

    /// The next node that was forgotten, by an operator of this node or of another one. Every such node is returned, however
    /// many there are: the caller that keeps connections has to forget it as well.
    pub fn poll_forgotten(&mut self) -> Option<NodeName> {
        self.output.pop_forgotten()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.output.event(self.now, event);
    }
}
