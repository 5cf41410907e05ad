//! Membership by SWIM: random probes, suspicion, and gossip (Das, Gupta & Motivala 2002), done by `foca`.
//!
//! What is ours: identities that let a run that was declared dead come back ([`Id`]), the check of every datagram before
//! `foca` sees it, joining over links as they come up, and the bound on the table of members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::{Buf, Bytes};
use foca::{Codec, Foca, NoCustomBroadcast, Notification, PeriodicParams, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::limits::INCARNATION_REPORTED;

use super::codec::IdCodec;
use super::id::Id;
use super::timers::Timers;
use super::{DatagramError, Membership, MembershipEvent, Peer, Time};
use crate::MemberState;
use crate::limits::{DATAGRAM_BYTES, MEMBERS};

/// How often a linked peer that is no member yet is asked again to let this node join: datagrams get lost.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// How long a suspect of a cluster of up to ten has to say otherwise; longer with the logarithm of the cluster's size, as
/// the word takes longer to go round.
const SUSPICION: Duration = Duration::from_secs(3);

/// SWIM over the links of one node.
pub(crate) struct Swim {
    foca: Foca<Id, IdCodec, StdRng, NoCustomBroadcast>,
    outputs: Outputs,
    timers: Timers<Timer<Id>>,
    reachable: BTreeMap<NodeName, Reachable>,
    pub(super) known: BTreeMap<NodeName, Known>,
    transmits: VecDeque<(NodeName, Bytes)>,
    events: VecDeque<MembershipEvent>,
    unreachable: u64,
    left: bool,
}

/// A peer at the other end of a link.
#[derive(Debug, Clone)]
struct Reachable {
    peer: Peer,
    /// When it was last asked to let this node join.
    asked: Time,
    /// It has said something: it knows this node, and this node its present life.
    heard: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Known {
    id: Id,
    state: MemberState,
    since: Time,
}

/// What foca puts out during one call.
#[derive(Default)]
struct Outputs {
    messages: Vec<(Id, Bytes)>,
    timers: Vec<(Duration, Timer<Id>)>,
    rejoined: bool,
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
            known: BTreeMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            unreachable: 0,
            left: false,
        }
    }

    /// Takes what foca put out in the last call, and compares its view with the one reported.
    fn settle(&mut self, now: Time, done: Result<(), foca::Error>) {
        if let Err(error) = done {
            // None of these is fatal: foca's state stays usable, and the next probe goes on.
            tracing::debug!(%error, "membership");
        }
        if std::mem::take(&mut self.outputs.rejoined) {
            self.join_all(now);
        }
        for (after, timer) in self.outputs.timers.drain(..) {
            self.timers.set(now + after, timer);
        }
        for (to, data) in self.outputs.messages.drain(..) {
            if self.reachable.contains_key(&to.name) {
                self.transmits.push_back((to.name, data));
            } else {
                // A probe of a member without link: others will be asked to reach it.
                self.unreachable += 1;
            }
        }
        self.compare(now);
    }

    /// Reports every member whose state, run or address is not the one last reported.
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
            let before = self.known.get(&id.name);
            let since = before.filter(|before| before.state == state).map_or(now, |before| before.since);
            let news = before.is_none_or(|before| before.state != state || before.id.peer() != id.peer());
            if news || before.is_none_or(|before| before.id != *id) {
                self.known.insert(id.name.clone(), Known { id: id.clone(), state, since });
            }
            if news {
                changed = true;
                self.events.push_back(MembershipEvent::Changed { peer: id.peer(), state });
            }
        }
        if changed && let Err(error) = self.foca.set_config(config(self.foca.num_members())) {
            tracing::debug!(%error, "membership keeps its timings");
        }
    }

    /// Asks a peer to let this node join; who is asked by name takes it whatever its generation.
    fn join(&mut self, now: Time, name: &NodeName) {
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

    /// Whether the membership has a peer as running, and the peer has answered.
    fn has_joined(&self, reachable: &Reachable) -> bool {
        let Reachable { peer, heard, .. } = reachable;
        let alive = |known: &Known| known.state.is_active() && known.id.incarnation >= peer.incarnation;
        *heard && self.known.get(&peer.name).is_some_and(alive)
    }

    /// When the next peer is to be asked again.
    fn next_join(&self) -> Option<Time> {
        let waiting = self.reachable.values().filter(|peer| !self.left && !self.has_joined(peer));
        waiting.map(|peer| peer.asked + JOIN_AGAIN).min()
    }

    /// Takes a peer's hello for what it says: that this run is alive. So it is probed from now on, even if none of its
    /// datagrams ever arrives.
    fn believe_hello(&mut self, now: Time, peer: &Peer) {
        let known = self.known.get(&peer.name).map(|known| known.id.incarnation);
        if known >= Some(peer.incarnation) {
            return;
        }
        if known.is_none() && self.known.len() >= MEMBERS {
            self.make_room(1);
        }
        if known.is_some() || self.known.len() < MEMBERS {
            let alive = std::iter::once(foca::Member::alive(Id::first(peer)));
            let done = self.foca.apply_many(alive, true, &mut self.outputs);
            self.settle(now, done);
        }
    }

    /// Reads a datagram before foca does: who sent it, whom it names, and what it says about this node's own name.
    fn inspect(&mut self, from: &NodeName, mut data: &[u8]) -> Result<Option<Id>, DatagramError> {
        let malformed = |error: super::codec::CodecError| DatagramError::Malformed(error.to_string());
        let header = IdCodec.decode_header(&mut data).map_err(malformed)?;
        let run = |peer: &Peer| peer.name == header.src.name && peer.incarnation == header.src.incarnation;
        match self.reachable.get_mut(from).filter(|reachable| run(&reachable.peer)) {
            Some(reachable) => reachable.heard = true,
            None => {
                let said = format!("{}#{}", header.src.name, header.src.incarnation);
                return Err(DatagramError::Sender { said });
            }
        }
        let us = self.foca.identity();
        let mut newest = None;
        let mut strangers = BTreeSet::new();
        if !self.known.contains_key(&header.src.name) {
            strangers.insert(header.src.name);
        }
        let members = if data.len() >= 2 { data.get_u16() } else { 0 };
        for _ in 0..members {
            let member = IdCodec.decode_member(&mut data).map_err(malformed)?;
            let id = member.id();
            if !self.can_be_reported(id, from) {
                return Err(DatagramError::Run { said: format!("{}#{}", id.name, id.incarnation) });
            }
            if id.name != us.name {
                if !self.known.contains_key(&id.name) {
                    strangers.insert(id.name.clone());
                }
            } else if id.is_newer_than(newest.as_ref().unwrap_or(us)) {
                newest = Some(id.clone());
            }
        }
        if self.known.len() + strangers.len() > MEMBERS {
            self.make_room(strangers.len());
        }
        if self.known.len() + strangers.len() > MEMBERS { Err(DatagramError::Full) } else { Ok(newest) }
    }

    /// Whether a run is one that a peer may tell of: its own, or one that the other is in or may have begun.
    fn can_be_reported(&self, id: &Id, from: &NodeName) -> bool {
        let us = self.foca.identity();
        let said = self.reachable.get(&id.name).map(|reachable| reachable.peer.incarnation);
        let heard = self.known.get(&id.name).map(|known| known.id.incarnation);
        let own = (id.name == us.name).then_some(us.incarnation);
        let known = [said, heard, own].into_iter().flatten().any(|run| id.incarnation <= run);
        known || id.name == *from || id.incarnation.0 <= INCARNATION_REPORTED
    }

    /// Drops those who are dead or have left the longest.
    fn make_room(&mut self, strangers: usize) {
        let mut gone: Vec<(Time, NodeName)> = self
            .known
            .iter()
            .filter(|(_, known)| !known.state.is_active())
            .map(|(name, known)| (known.since, name.clone()))
            .collect();
        gone.sort();
        let missing = (self.known.len() + strangers).saturating_sub(MEMBERS);
        for (_, name) in gone.into_iter().take(missing) {
            self.drop_member(&name);
        }
    }

    fn drop_member(&mut self, name: &NodeName) {
        let Some(known) = self.known.remove(name) else { return };
        if known.state.is_active() {
            let down = std::iter::once(foca::Member::down(known.id.clone()));
            // Not broadcast: that this node forgets it does not mean that others should.
            let _ = self.foca.apply_many(down, false, &mut self.outputs);
        }
        let _ = self.foca.handle_timer(Timer::RemoveDown(known.id), &mut self.outputs);
        self.events.push_back(MembershipEvent::Dropped(name.clone()));
    }

    /// A newer identity with this node's name: another run, which supersedes this one; or another life of this run, which
    /// this node did not live and answers with the next.
    fn answer_newer(&mut self, now: Time, newer: &Id) {
        let us = self.foca.identity();
        if newer.incarnation > us.incarnation {
            self.events.push_back(MembershipEvent::Superseded(newer.incarnation));
            return;
        }
        let next = Id { generation: newer.generation.saturating_add(1), ..us.clone() };
        let done = self.foca.change_identity(next, &mut self.outputs);
        self.outputs.rejoined = true;
        self.settle(now, done);
    }
}

impl Membership for Swim {
    fn link_up(&mut self, now: Time, peer: Peer) {
        let name = peer.name.clone();
        self.reachable.insert(name.clone(), Reachable { peer: peer.clone(), asked: now, heard: false });
        if !self.left {
            self.believe_hello(now, &peer);
        }
        self.join(now, &name);
    }

    fn link_down(&mut self, name: &NodeName) {
        self.reachable.remove(name);
    }

    fn handle_datagram(&mut self, now: Time, from: &NodeName, data: &[u8]) -> Result<(), DatagramError> {
        if self.left {
            return Ok(());
        }
        if let Some(newer) = self.inspect(from, data)? {
            self.answer_newer(now, &newer);
            return Ok(());
        }
        let done = self.foca.handle_data(data, &mut self.outputs);
        let read = done.as_ref().copied().map_err(|error| DatagramError::Malformed(error.to_string()));
        self.settle(now, done);
        read
    }

    fn handle_timeout(&mut self, now: Time) {
        self.timers.forgive_stop(now);
        while let Some(timer) = self.timers.pop(now) {
            let done = self.foca.handle_timer(timer, &mut self.outputs);
            self.settle(now, done);
        }
        let due = |peer: &Reachable| peer.asked + JOIN_AGAIN <= now && !self.has_joined(peer);
        let waiting: Vec<NodeName> =
            self.reachable.iter().filter(|(_, peer)| due(peer)).map(|(name, _)| name.clone()).collect();
        for name in waiting {
            self.join(now, &name);
        }
    }

    fn handle_goodbye(&mut self, now: Time, name: &NodeName, incarnation: Incarnation) {
        let id = match self.known.get(name) {
            Some(known) if known.id.incarnation > incarnation => return,
            Some(known) if known.id.incarnation == incarnation => known.id.clone(),
            _ => match self.reachable.get(name) {
                Some(Reachable { peer, .. }) if peer.incarnation == incarnation => Id::first(peer),
                _ => return,
            },
        };
        let gone = foca::Member::down(Id { left: true, ..id });
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
        self.settle(now, Ok(()));
    }

    fn leave(&mut self, now: Time) {
        // The life that ends is marked, so that who hears of it from others knows a goodbye from a death.
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
        self.timers.next().into_iter().chain(self.next_join()).min()
    }

    fn unreachable(&self) -> u64 {
        self.unreachable
    }
}

/// How foca is set for a cluster of `members` others. Each node probes one other a second, whatever the cluster's size:
/// an idle node sends and answers two or three datagrams of some hundred bytes a second over all its links together. A
/// dead node is probed within a second or two, suspected a second later and declared dead 3 s after that.
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
        // Never by time: a dead member is remembered until it comes back, is forgotten, or is in the way of a new one.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::MIN.saturating_add(DATAGRAM_BYTES - 1),
        notify_down_members: true,
        periodic_announce: periodic(Duration::from_secs(30), NonZeroUsize::MIN),
        periodic_announce_to_down_members: periodic(Duration::from_secs(10), THREE),
        periodic_gossip: periodic(Duration::from_millis(250), THREE),
    }
}
