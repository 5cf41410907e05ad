//! Handles links that come up and go down.

use std::net::SocketAddr;
use std::sync::Arc;

use tallymesh_schemas::Bound;
use tallymesh_schemas::actor::Incarnation;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::bounds::MEMBERS;
use crate::closing::code::Code;
use crate::closing::ending::{Ending, Failure};
use crate::counters::Refusal;
use crate::counters::count;
use crate::greet::Greeted;
use crate::link::{Link, LinkId};
use crate::member::MemberState;
use crate::membership::protocol::Peer;
use crate::mesh::plan::Origin;
use crate::mesh::settle::{Candidate, DialedBy, Verdict, settle};
use crate::mesh::{Live, Mesh};
use crate::reports::{Change, Rival};
use crate::session::Session;
use crate::shared::KnownMember;

impl Mesh {
    /// Both ends have exchanged hellos. The connection becomes a link, or this node refuses it with a reason.
    pub(super) fn greeted(&mut self, greeted: Greeted, origin: &Origin) {
        let addr = greeted.conn.conn().remote_address();
        let peer = greeted.hello.name.clone();
        if peer == self.shared.name {
            self.met_ourselves(&greeted, origin, addr);
            return;
        }
        if greeted.introduced_as != self.shared.incarnation() {
            // This node has renewed since its hello.
            greeted.conn.conn().close(Code::Renewed.var(), b"renewed");
            self.plan.ended(self.now(), origin, None);
            return;
        }
        if let Some(ending) = greeted.conn.ended() {
            // The peer has closed the connection since its hello.
            self.failed(origin, addr, &Failure::Proven { peer, ending });
            return;
        }
        let dialed_by = if *origin == Origin::Incoming { DialedBy::Peer } else { DialedBy::Us };
        if let Err(error) = self.accepts(greeted.conn.conn(), dialed_by) {
            self.refuse(&greeted, origin, Refusal::Authority, &error.to_string(), "the authorities have changed");
            return;
        }
        let candidate = Candidate { incarnation: greeted.hello.incarnation, dialed_by };
        let live = self.state.links.get(&peer).filter(|live| live.link.is_live()).map(|live| live.candidate);
        let (known, met) = match self.shared.members.lock().get(&peer) {
            Some(known) => (true, known.met),
            None => (false, None),
        };
        if !known && self.state.links.len() >= MEMBERS {
            self.shared.tally.bounds.reached(Bound::Members);
            self.refuse(&greeted, origin, Refusal::ClusterFull, "the table of members is full", "full");
            return;
        }
        match settle(&self.shared.name, &peer, met, live, candidate) {
            Verdict::Accept => {
                self.plan.ended(self.now(), origin, Some(&peer));
                self.link(greeted, candidate);
            }
            Verdict::Duplicate => {
                tracing::debug!(%peer, %addr, "a second connection to a linked peer was closed");
                greeted.conn.conn().close(Code::Replaced.var(), b"linked already");
                self.plan.ended(self.now(), origin, Some(&peer));
            }
            Verdict::Stale(newest) => self.refuse_stale(&greeted, origin, newest),
        }
    }

    /// Refuses a peer that is an older run than the known one: a process whose clock was set back, or one of two processes that
    /// use one name.
    fn refuse_stale(&mut self, greeted: &Greeted, origin: &Origin, newest: Incarnation) {
        let name = &greeted.hello.name;
        let other = Rival { addr: greeted.conn.conn().remote_address(), incarnation: greeted.hello.incarnation };
        let linked = self.state.links.get(name).map(|live| live.link.remote_addr());
        let known = || self.shared.members.lock().get(name).map(|known| known.addr);
        match linked.or_else(known).filter(|addr| *addr != other.addr) {
            Some(addr) => self.refuse_rival(greeted, origin, Rival { addr, incarnation: newest }, other),
            None => {
                let detail = format!("it is run {} of the node, and run {newest} is known", other.incarnation);
                self.refuse(greeted, origin, Refusal::Stale, &detail, &newest.to_string());
            }
        }
    }

    /// Refuses one of two processes that use one name.
    fn refuse_rival(&mut self, greeted: &Greeted, origin: &Origin, current: Rival, other: Rival) {
        let name = &greeted.hello.name;
        self.shared.reports.rivals(name, current, other);
        self.shared.count_refusal(other.addr, Some(name), Refusal::Stale);
        greeted.conn.conn().close(Code::Superseded.var(), current.incarnation.to_string().as_bytes());
        self.plan.ended(self.now(), origin, None);
    }

    fn refuse(&mut self, greeted: &Greeted, origin: &Origin, refusal: Refusal, detail: &str, reason: &str) {
        let conn = greeted.conn.conn();
        self.shared.refuse(conn.remote_address(), Some(&greeted.hello.name), refusal, detail);
        conn.close(Code::of(refusal).var(), reason.as_bytes());
        self.plan.ended(self.now(), origin, None);
    }

    /// The peer has this node's name: it is this node, or another process with its key.
    fn met_ourselves(&mut self, greeted: &Greeted, origin: &Origin, addr: SocketAddr) {
        let theirs = (greeted.hello.incarnation, greeted.hello.nonce);
        let ours = (self.shared.incarnation(), self.shared.nonce);
        let us = self.shared.name.clone();
        if theirs.1 == ours.1 {
            greeted.conn.conn().close(Code::Ourselves.var(), b"this node itself");
            self.plan.ended(self.now(), origin, Some(&us));
        } else if theirs > ours {
            greeted.conn.conn().close(Code::Closed.var(), b"the older of two runs of one node");
            self.plan.ended(self.now(), origin, None);
            self.superseded(theirs.0, &us, Some(addr));
        } else {
            let here = Rival { addr: self.shared.advertised, incarnation: ours.0 };
            self.refuse_rival(greeted, origin, here, Rival { addr, incarnation: theirs.0 });
        }
        tracing::debug!(%addr, "a connection to this node's own name");
    }

    /// Turns a connection into a link, and closes an earlier link of the peer first.
    fn link(&mut self, greeted: Greeted, candidate: Candidate) {
        let Greeted { conn, stream, frames, hello, version, introduced_as } = greeted;
        let peer = hello.name.clone();
        if let Some(before) = self.state.links.remove(&peer) {
            if candidate.incarnation > before.candidate.incarnation {
                let newer = candidate.incarnation.to_string();
                before.link.end(Code::Superseded, Ending::local("replaced by a newer run"), &newer);
            } else {
                before.link.end(Code::Replaced, Ending::local("replaced by a newer connection"), "replaced");
            }
            self.unlink(&before.link);
        }
        self.state.last_id += 1;
        let link = Link::new(LinkId(self.state.last_id), hello, version, introduced_as, conn);
        let addr = link.advertised();
        if self.shared.reports.link(&peer, Change::Up) {
            tracing::info!(%peer, %addr, remote = %link.remote_addr(), incarnation = %link.incarnation(), link = %link.id(),
                dialed = candidate.dialed_by == DialedBy::Us, version, build = link.build(), "link up");
        }
        count(&self.shared.tally.links_up, 1);
        let (done, tail) = oneshot::channel();
        let session = Session {
            shared: Arc::clone(&self.shared),
            link: link.clone(),
            stream,
            frames,
            inbox: self.inbox.clone(),
            mesh: self.dialer.mesh.clone(),
            previous: self.state.tails.insert(peer.clone(), tail),
            done,
        };
        let span = tracing::info_span!("link", %peer, id = %link.id());
        self.state.sessions.spawn(session.run().instrument(span));
        self.state.by_id.insert(link.id(), peer.clone());
        self.plan.linked(&peer, addr);
        self.enlist(&link);
        let since = self.now();
        self.state.links.insert(peer.clone(), Live { link: link.clone(), candidate, since });
        self.membership.link_up(since, Peer { name: peer, addr, incarnation: link.incarnation() });
    }

    /// Lists the peer as linked. Until the membership reports its state, the peer is alive, as its hello shows.
    fn enlist(&self, link: &Link) {
        let mut members = self.shared.members.lock();
        let known = members.entry(link.peer().clone()).or_insert_with(|| KnownMember {
            addr: link.advertised(),
            incarnation: link.incarnation(),
            state: MemberState::Alive,
            met: None,
            link: None,
        });
        // The member's own statement has priority over hearsay.
        if link.incarnation() != known.incarnation {
            known.incarnation = link.incarnation();
            known.addr = link.advertised();
            known.state = MemberState::Alive;
        }
        known.met = known.met.max(Some(link.incarnation()));
        known.link = Some(link.clone());
    }

    /// A link's connection has ended.
    pub(super) fn ended(&mut self, link: &Link, ending: &Ending) {
        let peer = link.peer();
        self.state.by_id.remove(&link.id());
        // What a peer says about an earlier run of this node is not news.
        let current = link.introduced_as() == self.shared.incarnation();
        if let Some(refusal) = ending.refusal.filter(|_| current) {
            self.shared.refuse(link.remote_addr(), Some(peer), refusal, &ending.reason);
        }
        if let Some(by) = ending.superseded.filter(|_| current) {
            self.superseded(by, peer, None);
        }
        let Some(live) = self.state.links.get(peer).filter(|live| live.link.id() == link.id()) else { return };
        let held = self.now().saturating_sub(live.since);
        self.state.links.remove(peer);
        self.unlink(link);
        if self.shared.reports.link(peer, Change::Down) {
            tracing::info!(%peer, link = %link.id(), reason = ending.reason, goodbye = ending.goodbye, "link down");
        }
        let now = self.now();
        self.plan.unlinked(now, peer, held);
        if ending.goodbye {
            self.membership.handle_goodbye(now, peer, link.incarnation());
        }
        let left = self.shared.members.lock().get_mut(peer).is_some_and(|known| {
            if ending.goodbye {
                known.state = MemberState::Left;
            }
            known.state == MemberState::Left
        });
        if left {
            self.plan.member(now, peer, link.advertised(), MemberState::Left);
        }
        self.membership.link_down(now, peer);
    }

    /// Removes a link from the lists. The order matters: a peer that says goodbye must still be reachable at that moment.
    fn unlink(&mut self, link: &Link) {
        count(&self.shared.tally.links_down, 1);
        self.state.by_id.remove(&link.id());
        if let Some(known) = self.shared.members.lock().get_mut(link.peer()) {
            known.link = None;
        }
    }

    /// Removes the records of links whose end has been reported.
    pub(super) fn sweep(&mut self) {
        self.state.tails.retain(|_, tail| matches!(tail.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    }
}
