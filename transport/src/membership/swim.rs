//! Membership by SWIM: random probes, suspicion, and gossip (Das, Gupta & Motivala 2002). `foca` implements it.
//!
//! This module adds: identities that let a run return after it was declared dead ([`Id`]), the check of every datagram before
//! `foca` sees it, joining over links as they come up, the rules for hearsay (`hearsay.rs`), and the bound on the table of
//! members (`table.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, Notification, PeriodicParams, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::bounds::{DATAGRAM_BYTES, MEMBERS};
use crate::member::MemberState;
use crate::membership::codec::{Datagram, IdCodec};
use crate::membership::id::Id;
use crate::membership::protocol::{DatagramError, Membership, MembershipEvent, Peer, Time};
use crate::membership::records::{Reachable, ReportedMember};
use crate::membership::timers::Timers;

/// How often this node asks again to join a linked peer that is not a member yet, because datagrams can be lost.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// How long a suspect in a cluster of up to ten nodes may take to refute. The time grows with the logarithm of the cluster's
/// size, because gossip takes longer to reach all nodes.
const SUSPICION: Duration = Duration::from_secs(3);

/// SWIM over the links of one node.
pub(crate) struct Swim {
    pub(super) foca: Foca<Id, IdCodec, StdRng, NoCustomBroadcast>,
    pub(super) outputs: Outputs,
    timers: Timers<Timer<Id>>,
    pub(super) reachable: BTreeMap<NodeName, Reachable>,
    pub(super) members: BTreeMap<NodeName, ReportedMember>,
    /// The member that introduces the new members of this call.
    pub(super) introducer: Option<NodeName>,
    /// When this run began its current life.
    pub(super) renewed: Option<Time>,
    /// When this node last refuted a suspicion.
    pub(super) refuted: Option<Time>,
    pub(super) transmits: VecDeque<(NodeName, Bytes)>,
    pub(super) events: VecDeque<MembershipEvent>,
    unreachable: u64,
    /// Names that found no place and are not counted yet.
    pub(super) not_introduced: u64,
    left: bool,
}

/// The outputs of foca during one call.
#[derive(Default)]
pub(super) struct Outputs {
    messages: Vec<(Id, Bytes)>,
    timers: Vec<(Duration, Timer<Id>)>,
    pub(super) rejoined: bool,
}

impl foca::Runtime<Id> for Outputs {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        self.rejoined |= matches!(notification, Notification::Rejoin(_));
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.messages.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        self.timers.push((after, event));
    }
}

impl Swim {
    /// The membership of one run; `seed` feeds its random choices.
    pub(crate) fn new(us: &Peer, seed: u64) -> Self {
        Self {
            foca: Foca::new(Id::first(us), config(0), StdRng::seed_from_u64(seed), IdCodec),
            outputs: Outputs::default(),
            timers: Timers::new(),
            reachable: BTreeMap::new(),
            members: BTreeMap::new(),
            introducer: None,
            renewed: None,
            refuted: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            unreachable: 0,
            not_introduced: 0,
            left: false,
        }
    }

    /// Processes foca's outputs of the last call, and compares its view with the reported one.
    pub(super) fn settle(&mut self, now: Time, done: Result<(), foca::Error>) {
        if let Err(error) = done {
            // None of these errors is fatal: foca's state stays valid, and the next probe continues.
            tracing::debug!(%error, "membership");
        }
        if std::mem::take(&mut self.outputs.rejoined) {
            self.join_all(now);
        }
        for (after, timer) in self.outputs.timers.drain(..) {
            self.timers.set(now + after, timer);
        }
        for (to, data) in std::mem::take(&mut self.outputs.messages) {
            if self.reachable.contains_key(&to.name) {
                let data = self.outgoing(data);
                self.transmits.push_back((to.name, data));
            } else {
                // A probe of a member without a link. foca then asks other members to reach it.
                self.unreachable += 1;
            }
        }
        self.compare(now);
    }

    /// Reports every member whose state, run or address differs from the last report.
    fn compare(&mut self, now: Time) {
        let us = self.foca.identity().name.clone();
        let mut changed = false;
        for member in self.foca.iter_membership_state().filter(|member| member.id().name != us) {
            let id = member.id();
            let state = match member.state() {
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down if id.left => MemberState::Left,
                State::Down => MemberState::Dead,
            };
            let before = self.members.get(&id.name);
            let since = before.filter(|before| before.state == state).map_or(now, |before| before.since);
            let news = before.is_none_or(|before| before.state != state || before.id.peer() != id.peer());
            if news || before.is_none_or(|before| before.id != *id) {
                let introduced_by =
                    before.map_or_else(|| self.introducer.clone(), |before| before.introduced_by.clone());
                self.members.insert(id.name.clone(), ReportedMember { id: id.clone(), state, since, introduced_by });
            }
            if news {
                changed = true;
                let introduced_by = self.members.get(&id.name).and_then(|known| known.introduced_by.clone());
                self.events.push_back(MembershipEvent::Changed { peer: id.peer(), state, introduced_by });
            }
        }
        if changed && let Err(error) = self.foca.set_config(config(self.foca.num_members())) {
            tracing::debug!(%error, "membership keeps its timings");
        }
    }

    /// Asks a peer to let this node join. The peer accepts a request under its name whatever its generation is.
    pub(super) fn join(&mut self, now: Time, name: &NodeName) {
        if self.left {
            return;
        }
        let Some(reachable) = self.reachable.get_mut(name) else { return };
        reachable.asked = now;
        let id = Id::first(&reachable.peer);
        let done = self.foca.announce(id, &mut self.outputs);
        self.settle(now, done);
    }

    fn join_all(&mut self, now: Time) {
        let names: Vec<NodeName> = self.reachable.keys().cloned().collect();
        for name in names {
            self.join(now, &name);
        }
    }

    /// Whether the membership lists a peer as running, and the peer has answered.
    fn has_joined(&self, reachable: &Reachable) -> bool {
        let Reachable { peer, has_spoken, .. } = reachable;
        let alive = |known: &ReportedMember| known.state.is_active() && known.id.incarnation >= peer.incarnation;
        *has_spoken && self.members.get(&peer.name).is_some_and(alive)
    }

    /// When to ask the next peer again.
    fn next_join(&self) -> Option<Time> {
        let waiting = self.reachable.values().filter(|peer| !self.left && !self.has_joined(peer));
        waiting.map(|peer| peer.asked + JOIN_AGAIN).min()
    }

    /// Treats a peer's hello as proof that this run is alive. So this node probes it from now on, even if none of its datagrams
    /// ever arrives. Hearsay about a later run was wrong.
    fn believe_hello(&mut self, now: Time, peer: &Peer) {
        let run = |id: &Id| (id.incarnation, id.addr);
        match self.record(&peer.name) {
            Some(record) if run(record.id()) > (peer.incarnation, peer.addr) => {
                self.replace_record(now, foca::Member::alive(Id::first(peer)));
            }
            Some(record) if record.id().incarnation == peer.incarnation => {}
            record => {
                if record.is_some() || self.members.len() < MEMBERS || self.make_room_for_peer() {
                    let alive = std::iter::once(foca::Member::alive(Id::first(peer)));
                    let done = self.foca.apply_many(alive, true, &mut self.outputs);
                    self.settle(now, done);
                }
            }
        }
        if let Some(known) = self.members.get_mut(&peer.name)
            && known.introduced_by.take().is_some()
        {
            let (peer, state) = (known.id.peer(), known.state);
            self.events.push_back(MembershipEvent::Changed { peer, state, introduced_by: None });
        }
    }

    /// Checks that a datagram comes from the run at the other end of the link, and that the table has a place for it.
    fn check_sender(&mut self, from: &NodeName, src: &Id) -> Result<(), DatagramError> {
        let run = |peer: &Peer| peer.name == src.name && peer.incarnation == src.incarnation;
        if !self.reachable.get(from).is_some_and(|reachable| run(&reachable.peer)) {
            return Err(DatagramError::Sender { said: format!("{}#{}", src.name, src.incarnation) });
        }
        let room = self.members.contains_key(from) || self.members.len() < MEMBERS || self.make_room_for_peer();
        if room { Ok(()) } else { Err(DatagramError::Full) }
    }

    /// Filters an outgoing datagram: a node gossips only about members that have said hello to it.
    fn outgoing(&self, data: Bytes) -> Bytes {
        let never_met = |name: &NodeName| self.members.get(name).is_some_and(|known| known.introduced_by.is_some());
        if !self.members.values().any(|known| known.introduced_by.is_some()) {
            return data;
        }
        match Datagram::read(&data) {
            Ok(mut datagram) if datagram.members.iter().any(|member| never_met(&member.id().name)) => {
                datagram.members.retain(|member| !never_met(&member.id().name));
                datagram.write().map_or(data, Bytes::from)
            }
            _ => data,
        }
    }
}

impl Membership for Swim {
    fn link_up(&mut self, now: Time, peer: Peer) {
        let name = peer.name.clone();
        self.reachable.insert(name.clone(), Reachable::new(now, peer.clone()));
        if !self.left {
            self.believe_hello(now, &peer);
        }
        self.join(now, &name);
    }

    fn link_down(&mut self, now: Time, name: &NodeName) {
        let doubt = self.reachable.remove(name).and_then(|reachable| reachable.doubt);
        // The link is down, so no better source than hearsay remains.
        self.believe(now, doubt.into_iter().map(|doubt| doubt.said).collect());
    }

    fn handle_datagram(&mut self, now: Time, from: &NodeName, data: &[u8]) -> Result<(), DatagramError> {
        if self.left {
            return Ok(());
        }
        let malformed = |error: &dyn std::fmt::Display| DatagramError::Malformed(error.to_string());
        let mut datagram = Datagram::read(data).map_err(|error| malformed(&error))?;
        self.check_sender(from, &datagram.header.src)?;
        self.record_statement(now, from, &datagram);
        let us = self.foca.identity().clone();
        let to_us = datagram.header.dst == us;
        let declared_dead = to_us && datagram.header.message == foca::Message::TurnUndead;
        if declared_dead {
            // A message that this life was declared dead is answered below, at a bounded rate. foca would answer every one.
            datagram.header.message = foca::Message::Gossip;
        }
        let header = Datagram::write_header(&datagram.header).map_err(|error| malformed(&error))?;
        let done = self.foca.handle_data(&header, &mut self.outputs);
        let read = done.as_ref().copied().map_err(|error| malformed(error));
        self.settle(now, done);
        let (own, others): (Vec<_>, Vec<_>) = datagram.members.into_iter().partition(|m| m.id().name == us.name);
        let listens = to_us && self.foca.iter_members().any(|member| *member.id() == datagram.header.src);
        if listens {
            self.take_members(now, from, others);
        }
        own.iter().for_each(|said| self.answer(now, said));
        if declared_dead {
            self.next_life(now, us.generation.saturating_add(1));
        }
        self.pass_on(now);
        read
    }

    fn handle_timeout(&mut self, now: Time) {
        self.timers.forgive_stop(now);
        while let Some(timer) = self.timers.pop(now) {
            let done = self.foca.handle_timer(timer, &mut self.outputs);
            // A probe or a suspicion may concern a life that is known only from hearsay.
            self.overrule_all(now);
            self.settle(now, done);
        }
        let due = |peer: &Reachable| peer.asked + JOIN_AGAIN <= now && !self.has_joined(peer);
        let waiting: Vec<NodeName> =
            self.reachable.iter().filter(|(_, peer)| due(peer)).map(|(name, _)| name.clone()).collect();
        for name in waiting {
            self.join(now, &name);
        }
        self.end_doubts(now);
        self.pass_on(now);
        self.drop_never_met(now);
    }

    fn handle_goodbye(&mut self, now: Time, name: &NodeName, incarnation: Incarnation) {
        let id = match self.members.get(name) {
            Some(known) if known.id.incarnation > incarnation => return,
            Some(known) if known.id.incarnation == incarnation => known.id.clone(),
            _ => match self.reachable.get(name) {
                Some(Reachable { peer, .. }) if peer.incarnation == incarnation => Id::first(peer),
                _ => return,
            },
        };
        let last = Id { left: true, ..id };
        if let Some(reachable) = self.reachable.get_mut(name) {
            reachable.doubt = None;
            reachable.own = Some((last.clone(), 0));
        }
        let gone = foca::Member::down(last);
        let done = self.foca.apply_many(std::iter::once(gone), true, &mut self.outputs);
        self.settle(now, done);
    }

    fn renew(&mut self, now: Time, incarnation: Incarnation) {
        let us = self.foca.identity();
        let next = Id { incarnation, generation: 0, left: false, ..us.clone() };
        let done = self.foca.change_identity(next, &mut self.outputs);
        self.settle(now, done);
    }

    fn forget(&mut self, now: Time, name: &NodeName) {
        self.drop_member(name);
        self.drop_introduced_by(name);
        self.settle(now, Ok(()));
    }

    fn leave(&mut self, now: Time) {
        // The ending life is marked, so that nodes that learn of it by gossip can distinguish a goodbye from a death.
        let last = Id { left: true, ..self.foca.identity().clone() };
        let done = self.foca.change_identity(last, &mut self.outputs);
        self.settle(now, done);
        let done = self.foca.leave_cluster(&mut self.outputs);
        self.settle(now, done);
        self.left = true;
    }

    fn poll_transmit(&mut self) -> Option<(NodeName, Bytes)> {
        self.transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next().into_iter().chain(self.next_join()).chain(self.next_doubt()).min()
    }

    fn unreachable(&self) -> u64 {
        self.unreachable
    }

    fn take_not_introduced(&mut self) -> u64 {
        std::mem::take(&mut self.not_introduced)
    }
}

/// foca's settings for a cluster of `members` others. Each node probes one other node a second, whatever the cluster's size: an
/// idle node sends and answers two or three datagrams of some hundred bytes a second over all its links together. A dead node
/// is probed within a second or two, suspected a second later and declared dead 3 s after that.
fn config(members: usize) -> foca::Config {
    const fn periodic(frequency: Duration, num_members: NonZeroUsize) -> Option<PeriodicParams> {
        Some(PeriodicParams { frequency, num_members })
    }
    const THREE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
    let size = members.max(10) as f64;
    foca::Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(400),
        num_indirect_probes: THREE,
        max_transmissions: NonZeroU8::MIN.saturating_add(11),
        suspect_to_down_after: SUSPICION.mul_f64(size.log10()),
        // Never by time: a node keeps a dead member until it returns, is forgotten, or its place is needed.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::MIN.saturating_add(DATAGRAM_BYTES - 1),
        notify_down_members: true,
        periodic_announce: periodic(Duration::from_secs(30), NonZeroUsize::MIN),
        periodic_announce_to_down_members: periodic(Duration::from_secs(10), THREE),
        periodic_gossip: periodic(Duration::from_millis(250), THREE),
    }
}
