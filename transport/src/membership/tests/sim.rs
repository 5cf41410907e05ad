//! Several instances in virtual time, with datagrams that arrive a millisecond later or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::bounds::DATAGRAM_BYTES;
use crate::member::MemberState;
use crate::membership::protocol::{Membership, MembershipEvent, Peer, Time};
use crate::membership::swim::Swim;

const DELAY: Duration = Duration::from_millis(1);

pub(super) fn peer(name: &str, incarnation: u64) -> Peer {
    let port = 7000 + name.bytes().map(u16::from).sum::<u16>();
    Peer {
        name: NodeName::new(name).unwrap(),
        addr: format!("192.0.2.1:{port}").parse().unwrap(),
        incarnation: Incarnation(incarnation),
    }
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) struct Node {
    pub(super) us: Peer,
    pub(super) swim: Swim,
    /// Whether it does not run, as if stopped by a signal.
    pub(super) stopped: bool,
    /// Its view of the other members, from its events.
    pub(super) view: BTreeMap<NodeName, (Incarnation, MemberState)>,
    pub(super) history: Vec<(Time, MembershipEvent)>,
    pub(super) sent: usize,
    pub(super) sent_bytes: usize,
}

pub(super) struct Sim {
    pub(super) now: Time,
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) links: BTreeSet<(NodeName, NodeName)>,
    wires: BTreeMap<(Time, u64), (NodeName, NodeName, bytes::Bytes)>,
    sent: u64,
    /// Whether nothing arrives although the links stay up.
    pub(super) cut: bool,
    pub(super) lost: usize,
}

impl Sim {
    pub(super) fn new(names: &[&str]) -> Self {
        let mut sim = Self {
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            links: BTreeSet::new(),
            wires: BTreeMap::new(),
            sent: 0,
            cut: false,
            lost: 0,
        };
        for name in names {
            sim.start(name, 1);
        }
        sim
    }

    pub(super) fn start(&mut self, name: &str, incarnation: u64) {
        let us = peer(name, incarnation);
        let swim = Swim::new(&us, incarnation + us.addr.port() as u64);
        let node = Node {
            us: us.clone(),
            swim,
            stopped: false,
            view: BTreeMap::new(),
            history: Vec::new(),
            sent: 0,
            sent_bytes: 0,
        };
        self.nodes.insert(us.name, node);
    }

    pub(super) fn link(&mut self, a: &str, b: &str) {
        for (from, to) in [(a, b), (b, a)] {
            let to = self.nodes[&name(to)].us.clone();
            self.links.insert((name(from), to.name.clone()));
            let now = self.now;
            self.node(from).swim.link_up(now, to);
        }
    }

    pub(super) fn unlink(&mut self, a: &str, b: &str) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.remove(&(name(from), name(to)));
            let now = self.now;
            if let Some(node) = self.nodes.get_mut(&name(from)) {
                node.swim.link_down(now, &name(to));
            }
        }
    }

    pub(super) fn mesh(&mut self, names: &[&str]) {
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                self.link(a, b);
            }
        }
    }

    pub(super) fn node(&mut self, of: &str) -> &mut Node {
        self.nodes.get_mut(&name(of)).unwrap()
    }

    pub(super) fn kill(&mut self, of: &str) {
        let others: Vec<String> = self.nodes.keys().map(ToString::to_string).collect();
        for other in others {
            self.unlink(of, &other);
        }
        self.nodes.remove(&name(of));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            let timers = self.nodes.values().filter(|node| !node.stopped).filter_map(|node| node.swim.poll_timeout());
            let wires = self.wires.keys().map(|(at, _)| *at);
            let Some(next) = timers.chain(wires).min().filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            while let Some(entry) = self.wires.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, data) = entry.remove();
                self.deliver(&from, &to, &data);
            }
            let now = self.now;
            for node in self.nodes.values_mut().filter(|node| !node.stopped) {
                if node.swim.poll_timeout().is_some_and(|at| at <= now) {
                    node.swim.handle_timeout(now);
                }
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: &NodeName, to: &NodeName, data: &[u8]) {
        let now = self.now;
        match self.nodes.get_mut(to) {
            Some(node) if !self.cut && !node.stopped && self.links.contains(&(to.clone(), from.clone())) => {
                node.swim.handle_datagram(now, from, data).unwrap();
            }
            _ => self.lost += 1,
        }
    }

    fn collect(&mut self) {
        for (from, node) in &mut self.nodes {
            while let Some((to, data)) = node.swim.poll_transmit() {
                assert!(data.len() <= DATAGRAM_BYTES);
                node.sent += 1;
                node.sent_bytes += data.len();
                self.sent += 1;
                self.wires.insert((self.now + DELAY, self.sent), (from.clone(), to, data));
            }
            while let Some(event) = node.swim.poll_event() {
                if let MembershipEvent::Changed { peer, state, .. } = &event {
                    node.view.insert(peer.name.clone(), (peer.incarnation, *state));
                }
                node.history.push((self.now, event));
            }
        }
    }

    pub(super) fn sees(&self, who: &str, whom: &str) -> Option<(u64, MemberState)> {
        self.nodes[&name(who)].view.get(&name(whom)).map(|(incarnation, state)| (incarnation.0, *state))
    }

    /// When `who` last changed its view of `whom` to this state.
    pub(super) fn since(&self, who: &str, whom: &str, wanted: MemberState) -> Option<Time> {
        self.nodes[&name(who)].history.iter().rev().find_map(|(at, event)| match event {
            MembershipEvent::Changed { peer, state, .. } if peer.name == name(whom) && *state == wanted => Some(*at),
            _ => None,
        })
    }

    #[track_caller]
    pub(super) fn assert_whole(&self, names: &[&str]) {
        for a in names {
            for b in names.iter().filter(|b| *b != a) {
                assert_eq!(self.sees(a, b).map(|(_, state)| state), Some(MemberState::Alive), "{a} of {b}");
            }
        }
    }
}

pub(super) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}
