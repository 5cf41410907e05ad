//! The notices, which are all events besides links and frames. They are kept by key, so that a slow reader costs no memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use parking_lot::Mutex;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tokio::sync::Notify;

use crate::bounds::{REFUSED_EVENTS, SUPERSEDED_EVENTS};
use crate::counters::Refusal;
use crate::event::Event;
use crate::link::LinkId;
use crate::member::MemberState;

/// The notices that wait for the reader.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    state: Mutex<State>,
    changed: Notify,
}

/// The membership's view of a member.
#[derive(Debug)]
pub(crate) struct SeenMember {
    pub(crate) state: MemberState,
    pub(crate) incarnation: Incarnation,
    pub(crate) addr: SocketAddr,
    /// The only member that has reported it, if it has never said hello to this node.
    pub(crate) introduced_by: Option<NodeName>,
}

#[derive(Debug, Default)]
struct State {
    /// The last statement of each peer.
    superseded: BTreeMap<NodeName, (Incarnation, Option<SocketAddr>)>,
    writable: BTreeSet<(NodeName, LinkId)>,
    /// `None` for a member that was dropped.
    members: BTreeMap<NodeName, Option<SeenMember>>,
    refused: VecDeque<(SocketAddr, Option<NodeName>, Refusal)>,
}

impl Notices {
    /// Records a peer's statement that this node is superseded. It replaces the peer's previous statement, but not those of
    /// other peers. Which of them to believe is decided elsewhere.
    pub(crate) fn superseded(&self, by: Incarnation, peer: &NodeName, addr: Option<SocketAddr>) {
        let mut state = self.state.lock();
        if state.superseded.len() < SUPERSEDED_EVENTS || state.superseded.contains_key(peer) {
            state.superseded.insert(peer.clone(), (by, addr));
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn writable(&self, peer: &NodeName, link: LinkId) {
        self.state.lock().writable.insert((peer.clone(), link));
        self.changed.notify_one();
    }

    /// The link goes down, so that it is writable is not reported any more.
    pub(crate) fn not_writable(&self, peer: &NodeName, link: LinkId) {
        self.state.lock().writable.remove(&(peer.clone(), link));
    }

    pub(crate) fn member(&self, name: NodeName, seen: SeenMember) {
        self.state.lock().members.insert(name, Some(seen));
        self.changed.notify_one();
    }

    pub(crate) fn dropped(&self, name: NodeName) {
        self.state.lock().members.insert(name, None);
        self.changed.notify_one();
    }

    /// Records a refusal. Returns whether there was room.
    pub(crate) fn refused(&self, addr: SocketAddr, name: Option<NodeName>, reason: Refusal) -> bool {
        let mut state = self.state.lock();
        let room = state.refused.len() < REFUSED_EVENTS;
        if room {
            state.refused.push_back((addr, name, reason));
        }
        drop(state);
        self.changed.notify_one();
        room
    }

    /// The oldest notice of the most important kind.
    pub(crate) fn pop(&self) -> Option<Event> {
        let mut state = self.state.lock();
        if let Some((peer, (by, addr))) = state.superseded.pop_first() {
            return Some(Event::Superseded { by, peer, addr });
        }
        if let Some((peer, link)) = state.writable.pop_first() {
            return Some(Event::Writable { peer, link });
        }
        match state.members.pop_first() {
            Some((name, Some(SeenMember { state, incarnation, addr, introduced_by }))) => {
                return Some(Event::Member { name, state, incarnation, addr, introduced_by });
            }
            Some((name, None)) => return Some(Event::Dropped { name }),
            None => {}
        }
        state.refused.pop_front().map(|(addr, name, reason)| Event::Refused { addr, name, reason })
    }

    /// Waits until there may be a notice to read.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_sees_the_latest() {
        let notices = Notices::default();
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let name = NodeName::new("a").unwrap();
        for state in [MemberState::Alive, MemberState::Suspect, MemberState::Dead] {
            notices.member(name.clone(), SeenMember { state, incarnation: Incarnation(1), addr, introduced_by: None });
        }
        let liar = NodeName::new("liar").unwrap();
        notices.superseded(Incarnation(2), &name, None);
        notices.superseded(Incarnation(9), &liar, None);
        notices.superseded(Incarnation(3), &name, None);
        for _ in 0..REFUSED_EVENTS + 10 {
            notices.refused(addr, None, Refusal::Authority);
        }
        assert!(matches!(notices.pop(), Some(Event::Superseded { by: Incarnation(3), .. })));
        assert!(matches!(notices.pop(), Some(Event::Superseded { by: Incarnation(9), .. })));
        assert!(matches!(notices.pop(), Some(Event::Member { state: MemberState::Dead, .. })));
        let mut refused = 0;
        while let Some(Event::Refused { .. }) = notices.pop() {
            refused += 1;
        }
        assert_eq!(refused, REFUSED_EVENTS);
    }
}
