//! How this node judges hearsay: a member's statements about other members.
//!
//! Only a node itself, over its own link, can state its run and life, that it is alive, and that it leaves. What one member
//! says about another one is hearsay:
//!
//! - About a member that has a link to this node, hearsay changes nothing at once. If it says that the member is not alive or
//!   is another run, this node passes it on to that member and asks for an answer. Any answer ends the doubt. If the member
//!   does not answer for [`DOUBT`], this node accepts the hearsay.
//! - About a member without a link, this node accepts hearsay, because no better source exists. It never accepts it as a
//!   goodbye. When the member speaks over a link again, the member's own statement replaces the hearsay.
//! - About this node itself, this node answers hearsay: with its next life, or with a new run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Header, Member, Message, State};
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::bounds::INCARNATION_REPORTED;

use crate::membership::codec::Datagram;
use crate::membership::id::{GENERATION_REPORTED, Id};
use crate::membership::protocol::{MembershipEvent, Time};
use crate::membership::records::Doubt;
use crate::membership::swim::Swim;

/// How long a linked member may take to answer hearsay about itself.
pub(super) const DOUBT: Duration = Duration::from_secs(3);

/// The least time between two pieces of hearsay that this node passes on to one member.
pub(super) const PASS_ON_PAUSE: Duration = Duration::from_secs(1);

/// The least time between two lives of this run. Every new life has to reach all nodes, and probes of the previous life get no
/// answer.
const LIFE_PAUSE: Duration = Duration::from_secs(1);

/// The least time between two refutations of a suspicion.
const REFUTE_PAUSE: Duration = Duration::from_millis(200);

/// This node answers a suspicion with a higher number than this with its next life, because these numbers can run out.
const REFUTATION: u16 = 1 << 15;

/// What this node does with one piece of hearsay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// It accepts the hearsay and gossips it.
    Take,
    /// It accepts the hearsay and does not gossip it, because it never had a link with that member.
    Note,
    /// It asks the member.
    Ask,
    /// It ignores the hearsay.
    Ignore,
}

impl Swim {
    /// Records that a peer has spoken: its statement about itself replaces hearsay.
    pub(super) fn record_statement(&mut self, now: Time, from: &NodeName, datagram: &Datagram) {
        let Some(reachable) = self.reachable.get_mut(from) else { return };
        reachable.has_spoken = true;
        reachable.doubt = None;
        let header = (&datagram.header.src, datagram.header.src_incarnation);
        let listed = datagram.members.iter().filter(|member| member.id().name == *from);
        let listed = listed.map(|member| (member.id(), member.incarnation()));
        let run = reachable.peer.incarnation;
        for (id, refutation) in std::iter::once(header).chain(listed).filter(|(id, _)| id.incarnation == run) {
            let newer = |(own, said): &(Id, u16)| id.is_newer_than(own) || (id == own && refutation > *said);
            if reachable.own.as_ref().is_none_or(newer) {
                reachable.own = Some((id.clone(), refutation));
            }
        }
        if let Some((id, refutation)) = reachable.own.clone() {
            self.overrule(now, id, refutation);
        }
    }

    /// Replaces foca's record of a peer if the record is later than anything the peer has said. This node passes the record on
    /// to the peer, so that the peer can answer it for all nodes without a link to the peer.
    fn overrule(&mut self, now: Time, own: Id, refutation: u16) {
        let Some(record) = self.record(&own.name) else { return };
        if (record.id().life(), record.incarnation()) <= (own.life(), refutation) {
            return;
        }
        self.replace_record(now, Member::new(own, refutation, State::Alive));
        if let Some(reachable) = self.reachable.get_mut(&record.id().name) {
            reachable.news = Some(record);
        }
    }

    /// [Overrules](Self::overrule) foca's records of all peers that have spoken.
    pub(super) fn overrule_all(&mut self, now: Time) {
        let records = self.foca.iter_membership_state();
        let wrong = records.filter_map(|record| {
            let (own, refutation) = self.reachable.get(&record.id().name)?.own.as_ref()?;
            let later = (record.id().life(), record.incarnation()) > (own.life(), *refutation);
            later.then(|| (own.clone(), *refutation))
        });
        for (own, refutation) in wrong.collect::<Vec<_>>() {
            self.overrule(now, own, refutation);
        }
    }

    pub(super) fn replace_record(&mut self, now: Time, own: Member<Id>) {
        self.remove_record(&own.id().name);
        let done = self.foca.apply_many(std::iter::once(own), true, &mut self.outputs);
        self.settle(now, done);
    }

    /// Handles the list of members in a datagram.
    pub(super) fn take_members(&mut self, now: Time, from: &NodeName, members: Vec<Member<Id>>) {
        let (mut take, mut note, mut new) = (Vec::new(), Vec::new(), BTreeSet::new());
        for member in members {
            let id = member.id();
            if id.name == *from {
                // A peer reports a later run of its own in a hello.
                let run = self.reachable.get(from).map(|reachable| reachable.peer.incarnation);
                if run.is_some_and(|run| id.incarnation <= run) {
                    take.push(member);
                }
                continue;
            }
            match self.judge(from, &member, &mut new) {
                Treatment::Take => take.push(hearsay(member)),
                Treatment::Note => note.push(hearsay(member)),
                Treatment::Ask => self.ask(now, member),
                Treatment::Ignore => {}
            }
        }
        self.introducer = Some(from.clone());
        let noted = self.foca.apply_many(note.into_iter(), false, &mut self.outputs);
        let taken = self.foca.apply_many(take.into_iter(), true, &mut self.outputs);
        self.settle(now, noted.and(taken));
        self.introducer = None;
    }

    fn judge(&mut self, from: &NodeName, member: &Member<Id>, new: &mut BTreeSet<NodeName>) -> Treatment {
        let id = member.id();
        let record = self.members.get(&id.name);
        if id.generation > GENERATION_REPORTED || !self.can_be_reported(id) {
            return Treatment::Ignore;
        }
        if self.reachable.contains_key(&id.name) {
            let older = record.is_some_and(|record| id.life() < record.id.life());
            let same = record.is_some_and(|record| id.life() == record.id.life());
            let well = member.state() == State::Alive && !id.left;
            return if older || (same && well) { Treatment::Ignore } else { Treatment::Ask };
        }
        let Some(record) = record else {
            // No node needs the record of a dead member that it never had a link with.
            if member.state() == State::Down || id.left {
                return Treatment::Ignore;
            }
            if !new.contains(&id.name) {
                if !self.may_introduce(from, new.len()) {
                    return Treatment::Ignore;
                }
                new.insert(id.name.clone());
            }
            return Treatment::Note;
        };
        if id.incarnation == record.id.incarnation && id.addr != record.id.addr {
            // A run never changes its address.
            return Treatment::Ignore;
        }
        if record.introduced_by.is_some() { Treatment::Note } else { Treatment::Take }
    }

    /// Whether other nodes may report this run: the node's current run or an earlier one, or a later one that it can have
    /// begun.
    fn can_be_reported(&self, id: &Id) -> bool {
        let us = self.foca.identity();
        let said = self.reachable.get(&id.name).map(|reachable| reachable.peer.incarnation);
        let reported = self.members.get(&id.name).map(|known| known.id.incarnation);
        let own = (id.name == us.name).then_some(us.incarnation);
        let known = [said, reported, own].into_iter().flatten().any(|run| id.incarnation <= run);
        known || id.incarnation.0 <= INCARNATION_REPORTED
    }

    /// Asks a linked member about hearsay.
    fn ask(&mut self, now: Time, said: Member<Id>) {
        let Some(reachable) = self.reachable.get_mut(&said.id().name) else { return };
        let later = |news: &Member<Id>| said.id().is_newer_than(news.id());
        if reachable.news.as_ref().is_none_or(later) {
            reachable.news = Some(said.clone());
        }
        let said = hearsay(said);
        match &mut reachable.doubt {
            None => reachable.doubt = Some(Doubt { said, since: now }),
            Some(doubt) if weight(&said) > weight(&doubt.said) => doubt.said = said,
            Some(_) => {}
        }
    }

    /// Passes hearsay on to the members that it is about, and asks for an answer.
    pub(super) fn pass_on(&mut self, now: Time) {
        let due = |last: Option<Time>| last.is_none_or(|last| last + PASS_ON_PAUSE <= now);
        let us = self.foca.identity().clone();
        let mut asked = Vec::new();
        for (name, reachable) in self.reachable.iter_mut().filter(|(_, reachable)| due(reachable.passed_on)) {
            let waits = reachable.doubt.is_some();
            let Some(news) = reachable.news.take().or_else(|| {
                let again = reachable.doubt.as_ref().filter(|_| waits);
                again.map(|doubt| doubt.said.clone())
            }) else {
                continue;
            };
            reachable.passed_on = Some(now);
            let dst = reachable.own.as_ref().map_or_else(|| Id::first(&reachable.peer), |(own, _)| own.clone());
            let header = Header { src: us.clone(), src_incarnation: 0, dst, message: Message::Gossip };
            match (Datagram { header, members: vec![news] }).write() {
                Ok(data) => self.transmits.push_back((name.clone(), data.into())),
                Err(error) => tracing::debug!(%error, "membership"),
            }
            asked.push(name.clone());
        }
        for name in asked {
            self.join(now, &name);
        }
    }

    /// Accepts the hearsay about members that have not answered in time.
    pub(super) fn end_doubts(&mut self, now: Time) {
        let mut unanswered = Vec::new();
        for reachable in self.reachable.values_mut() {
            let Some(doubt) = &mut reachable.doubt else { continue };
            let waited = now.saturating_sub(doubt.since);
            if waited >= DOUBT * 2 {
                // This process was stopped in between, and the answer may wait to be read.
                doubt.since = now;
            } else if waited >= DOUBT {
                unanswered.extend(reachable.doubt.take().map(|doubt| doubt.said));
                // The peer's own statement is no longer current.
                reachable.own = None;
            }
        }
        self.believe(now, unanswered);
    }

    /// Accepts hearsay that nothing has contradicted.
    pub(super) fn believe(&mut self, now: Time, said: Vec<Member<Id>>) {
        if !said.is_empty() {
            let done = self.foca.apply_many(said.into_iter(), true, &mut self.outputs);
            self.settle(now, done);
        }
    }

    /// When the next doubt ends, or when this node may pass on the next piece of hearsay.
    pub(super) fn next_doubt(&self) -> Option<Time> {
        let next = self.reachable.values().filter_map(|reachable| {
            let ends = reachable.doubt.as_ref().map(|doubt| doubt.since + DOUBT);
            let waits = reachable.news.is_some() || reachable.doubt.is_some();
            let next = waits.then(|| reachable.passed_on.map_or(Time::ZERO, |last| last + PASS_ON_PAUSE));
            ends.into_iter().chain(next).min()
        });
        next.min()
    }

    /// Answers a datagram's statement about this node itself.
    pub(super) fn answer(&mut self, now: Time, said: &Member<Id>) {
        let (id, us) = (said.id(), self.foca.identity().clone());
        if id.incarnation > us.incarnation {
            // Another run, which supersedes this one.
            if self.can_be_reported(id) {
                self.events.push_back(MembershipEvent::Superseded { by: id.incarnation, addr: Some(id.addr) });
            }
        } else if id.is_newer_than(&us) {
            // Another life of this run, which this node did not have.
            self.next_life(now, id.generation.saturating_add(1));
        } else if *id == us {
            match said.state() {
                State::Alive => {}
                State::Suspect if said.incarnation() <= REFUTATION => self.refute(now, said.clone()),
                State::Suspect | State::Down => self.next_life(now, us.generation.saturating_add(1)),
            }
        }
    }

    fn refute(&mut self, now: Time, suspicion: Member<Id>) {
        if self.refuted.is_some_and(|at| now < at + REFUTE_PAUSE) {
            return;
        }
        self.refuted = Some(now);
        let done = self.foca.apply_many(std::iter::once(suspicion), true, &mut self.outputs);
        self.settle(now, done);
    }

    /// Continues as a later life of this run, so that nodes that declared it dead accept it again. Requests a new run when
    /// there are no further lives.
    pub(super) fn next_life(&mut self, now: Time, generation: u32) {
        if self.renewed.is_some_and(|at| now < at + LIFE_PAUSE) {
            return;
        }
        self.renewed = Some(now);
        let us = self.foca.identity();
        if generation > GENERATION_REPORTED {
            self.events.push_back(MembershipEvent::Superseded { by: us.incarnation, addr: None });
            return;
        }
        let next = Id { generation, ..us.clone() };
        let done = self.foca.change_identity(next, &mut self.outputs);
        self.outputs.rejoined = true;
        self.settle(now, done);
    }
}

/// The order of two pieces of hearsay about a member: the greater one claims more.
fn weight(said: &Member<Id>) -> ((Incarnation, u32, SocketAddr), u8) {
    let state = match said.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    };
    (said.id().life(), state)
}

/// A statement about another member, reduced to what hearsay may state: it cannot be a goodbye.
fn hearsay(member: Member<Id>) -> Member<Id> {
    let state = if member.id().left { State::Down } else { member.state() };
    let id = Id { left: false, ..member.id().clone() };
    Member::new(id, member.incarnation(), state)
}
