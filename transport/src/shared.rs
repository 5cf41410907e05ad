//! The state that all parts of an endpoint share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tallymesh_schemas::Bound;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tokio::sync::watch;

use crate::config::Timings;
use crate::counters::Refusal;
use crate::counters::Tally;
use crate::hello::Hello;
use crate::link::Link;
use crate::member::{Joining, Member, MemberState};
use crate::notices::Notices;
use crate::reports::Reports;

/// The state that all parts of an endpoint share. Only the mesh writes the members.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: NodeName,
    pub(crate) nonce: u64,
    pub(crate) local: SocketAddr,
    pub(crate) advertised: SocketAddr,
    pub(crate) timings: Timings,
    pub(crate) tally: Tally,
    pub(crate) notices: Notices,
    pub(crate) reports: Reports,
    pub(crate) members: Mutex<BTreeMap<NodeName, KnownMember>>,
    /// Whether this node has found other nodes.
    pub(crate) joining: watch::Sender<Joining>,
    /// Set once, when the endpoint leaves.
    pub(crate) leaving: AtomicBool,
    incarnation: AtomicU64,
}

/// The mesh's knowledge of a member.
#[derive(Debug, Clone)]
pub(crate) struct KnownMember {
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: MemberState,
    /// The latest run that has said hello to this node. Hearsay does not change it.
    pub(crate) met: Option<Incarnation>,
    pub(crate) link: Option<Link>,
}

impl Shared {
    pub(crate) fn new(
        name: NodeName,
        incarnation: Incarnation,
        local: SocketAddr,
        advertised: SocketAddr,
        timings: Timings,
    ) -> Self {
        Self {
            name,
            nonce: rand::random(),
            local,
            advertised,
            timings,
            tally: Tally::default(),
            notices: Notices::default(),
            reports: Reports::default(),
            members: Mutex::new(BTreeMap::new()),
            joining: watch::Sender::new(Joining::Trying),
            leaving: AtomicBool::new(false),
            incarnation: AtomicU64::new(incarnation.0),
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::Acquire))
    }

    pub(crate) fn renew(&self, incarnation: Incarnation) {
        self.incarnation.store(incarnation.0, Ordering::Release);
    }

    /// The hello of this node, the first frame on every stream.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            name: self.name.clone(),
            incarnation: self.incarnation(),
            nonce: self.nonce,
            addr: self.advertised,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The current members.
    pub(crate) fn members(&self) -> Vec<Member> {
        let members = self.members.lock();
        members
            .iter()
            .map(|(name, known)| {
                let link = known.link.as_ref().filter(|link| link.is_live());
                Member {
                    name: name.clone(),
                    addr: known.addr,
                    incarnation: known.incarnation,
                    state: known.state,
                    linked: link.is_some(),
                    rtt: link.map(Link::rtt),
                    traffic: link.map(Link::traffic),
                    frames: link.map(Link::frames),
                }
            })
            .collect()
    }

    /// Counts, logs and reports a refusal.
    pub(crate) fn refuse(&self, addr: SocketAddr, name: Option<&NodeName>, refusal: Refusal, detail: &str) {
        self.reports.refused(addr, name, refusal, detail);
        self.count_refusal(addr, name, refusal);
    }

    /// Counts and reports a refusal that another log line mentions.
    pub(crate) fn count_refusal(&self, addr: SocketAddr, name: Option<&NodeName>, refusal: Refusal) {
        self.tally.refuse(refusal);
        if !self.notices.refused(addr, name.cloned(), refusal) {
            self.tally.bounds.reached(Bound::RefusedEvents);
        }
    }

    /// Whether a known member has this address: O(members).
    pub(crate) fn is_known(&self, addr: SocketAddr) -> bool {
        self.members.lock().values().any(|known| known.addr == addr)
    }
}
