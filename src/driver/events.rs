//! What the driver does on an event of the transport.

use tallymesh_engine::{Life, Now};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{NodeName, bounds};
use tallymesh_transport::{Event, Link, LinkId, MemberState};

use crate::driver::{BATCH, Driver};
use crate::events::NodeEvent;

impl Driver {
    pub(super) fn take_events(&mut self, first: Event) {
        let now = self.clock.now();
        self.handle_event(now, first);
        self.behind = false;
        for _ in 1..BATCH {
            let Some(event) = self.events.try_recv() else { return };
            self.handle_event(now, event);
        }
        self.behind = true;
    }

    fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::Up(link) => {
                self.replica.handle_hello(now, link.peer(), link.incarnation());
                tracing::debug!(peer = %link.peer(), incarnation = %link.incarnation(), "the driver has a link");
                let peer = link.peer().clone();
                self.links.insert(peer.clone(), link);
                if self.topology.connected(&peer) {
                    self.link_up(now, &peer);
                } else {
                    // The new connection replaces one that carried a link.
                    self.replica.handle_link_down(&peer);
                }
                self.announcer.tell(NodeEvent::Linked { node: peer });
            }
            Event::Frame { peer, link, payload } => self.handle_frame(now, &peer, link, &payload),
            // `transmit` checks all links for room.
            Event::Writable { .. } => {}
            Event::Down { peer, link, reason, goodbye } => {
                tracing::debug!(%peer, reason, goodbye, "the driver has lost a link");
                if self.links.get(&peer).is_some_and(|current| current.id() == link) {
                    self.disconnected(&peer, reason.to_string());
                }
            }
            Event::Member { name, state, incarnation, addr, introduced_by } => {
                tracing::debug!(member = %name, %state, %incarnation, %addr, "the membership tells of a member");
                // A member that is known only from hearsay does not take part in the overlay.
                let lives = matches!(state, MemberState::Alive | MemberState::Suspect);
                if lives && introduced_by.is_none() {
                    self.topology.joined(&name);
                } else {
                    self.topology.left(&name);
                }
                match introduced_by {
                    Some(by) => self.replica.handle_introduced(now, &name, incarnation, life(state), &by),
                    None => self.replica.handle_member(now, &name, incarnation, life(state)),
                }
            }
            Event::Dropped { name } => {
                self.topology.left(&name);
                self.replica.handle_dropped(now, &name);
            }
            Event::Superseded { by, peer, addr } => {
                addr.into_iter().for_each(|addr| self.reports.met_rival(addr));
                self.replica.handle_superseded(now, by, &peer);
            }
            Event::Refused { addr, name, reason } => {
                let name = name.map(|name| name.to_string()).unwrap_or_default();
                tracing::debug!(%addr, name, ?reason, "connection refused");
            }
        }
    }

    fn handle_frame(&mut self, now: Now, peer: &NodeName, id: LinkId, payload: &[u8]) {
        if self.links.get(peer).is_none_or(|link| link.id() != id) {
            return;
        }
        let message = Message::decode(payload);
        if !self.topology.takes(now.mono, peer, &message) {
            return;
        }
        if !self.replica.is_linked(peer) {
            self.link_up(now, peer);
        }
        if let Err(error) = self.replica.handle_decoded(now, peer, message) {
            self.reports.refused(now, peer, &error);
            if let Some(link) = self.links.get(peer) {
                link.close(&error.to_string());
            }
            self.disconnected(peer, error.to_string());
        }
    }

    /// A connection to a peer carries a link from now on. The protocol version of the connection decides which messages the
    /// peer understands.
    pub(super) fn link_up(&mut self, now: Now, peer: &NodeName) {
        let Some(protocol) = self.links.get(peer).map(Link::version) else { return };
        self.replica.handle_link_up_with(now, peer, protocol);
        if protocol < bounds::PROTOCOL_VERSION {
            self.reports.earlier(now, peer, protocol);
        }
    }

    fn disconnected(&mut self, peer: &NodeName, reason: String) {
        self.announcer.tell(NodeEvent::Unlinked { node: peer.clone(), reason });
        self.links.remove(peer);
        self.topology.disconnected(peer);
        self.replica.handle_hangup(peer);
        self.replica.handle_link_down(peer);
    }
}

fn life(state: MemberState) -> Life {
    match state {
        MemberState::Alive => Life::Alive,
        MemberState::Suspect => Life::Suspect,
        MemberState::Dead => Life::Dead,
        MemberState::Left => Life::Left,
    }
}
