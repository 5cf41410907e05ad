//! The overlay: the peers with which this node exchanges rows. In small clusters, these are all members. In large ones, the
//! overlay selects some of them.
//!
//! Every pair of members has a connection, which the membership protocol uses for its probes. Only some connections also carry
//! a replication link. Both ends compute the selection independently from the members that they see as alive. If the two ends
//! disagree, the one that wants the link opens it with a complete digest, and the other one accepts it for a limited time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_engine::Time;
use tallymesh_schemas::message::{Message, MessageError};
use tallymesh_schemas::{NodeName, Overlay, bounds};

/// How long this node exchanges rows with a peer that the overlay does not select any more, or does not select yet: until the
/// membership news has spread.
const LINGER: Duration = Duration::from_secs(2);

/// The cluster size up to which all members exchange rows with each other, and the number of rings in larger clusters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) mesh: usize,
    pub(crate) rings: u8,
}

impl Default for Bound {
    fn default() -> Self {
        Self { mesh: bounds::MESH, rings: bounds::RINGS }
    }
}

#[derive(Debug)]
pub(crate) struct Topology {
    overlay: Overlay,
    alive: BTreeSet<NodeName>,
    /// The peers with a link, and until when it lasts if the overlay does not select the peer.
    links: BTreeMap<NodeName, Option<Time>>,
    /// The set of live members has changed since the last check of the links.
    changed: bool,
}

impl Topology {
    pub(crate) fn new(us: NodeName, bound: Bound) -> Self {
        let overlay = Overlay::new(us, bound.mesh, bound.rings);
        Self { overlay, alive: BTreeSet::new(), links: BTreeMap::new(), changed: false }
    }

    /// A member is alive, and takes part in the overlay.
    pub(crate) fn joined(&mut self, name: &NodeName) {
        if self.alive.insert(name.clone()) {
            self.update();
        }
    }

    /// A member is not alive any more, or does not take part in the overlay.
    pub(crate) fn left(&mut self, name: &NodeName) {
        if self.alive.remove(name) {
            self.update();
        }
    }

    fn update(&mut self) {
        self.overlay.update(self.alive.iter());
        self.changed = true;
    }

    /// A connection to a peer came up. Returns whether it is to carry a link.
    pub(crate) fn connected(&mut self, peer: &NodeName) -> bool {
        self.links.remove(peer);
        let wanted = self.overlay.links_to(peer);
        if wanted {
            self.links.insert(peer.clone(), None);
        }
        wanted
    }

    /// Whether the overlay selects a link to this member.
    pub(crate) fn links_to(&self, name: &NodeName) -> bool {
        self.overlay.links_to(name)
    }

    /// The connection to a peer is closed.
    pub(crate) fn disconnected(&mut self, peer: &NodeName) {
        self.links.remove(peer);
    }

    /// Whether a peer's message belongs to a link. Every link begins with a complete digest, so that one opens a link. Other
    /// messages without a link come from a peer that does not know yet that the link ended. The replica rejects invalid
    /// messages.
    pub(crate) fn takes(&mut self, now: Time, peer: &NodeName, message: &Result<Message<'_>, MessageError>) -> bool {
        if !self.links.contains_key(peer) {
            let begins = match message {
                Ok(Message::Digest(digest)) => digest.complete,
                Ok(_) => false,
                Err(_) => true,
            };
            if !begins && !self.overlay.links_to(peer) {
                return false;
            }
            self.links.insert(peer.clone(), Some(now.after(LINGER)));
        }
        true
    }

    /// The peers among `peers` that are to have a link now; `None` if nothing can have changed. O(peers) if it has.
    pub(crate) fn poll<'a>(
        &mut self,
        now: Time,
        peers: impl Iterator<Item = &'a NodeName>,
    ) -> Option<BTreeSet<NodeName>> {
        if !std::mem::take(&mut self.changed) && now < self.due() {
            return None;
        }
        for peer in peers {
            if self.overlay.links_to(peer) {
                self.links.insert(peer.clone(), None);
            } else if let Some(until) = self.links.get_mut(peer) {
                until.get_or_insert(now.after(LINGER));
            }
        }
        self.links.retain(|_, until| until.is_none_or(|until| now < until));
        Some(self.links.keys().cloned().collect())
    }

    /// When the next temporary link ends.
    pub(crate) fn due(&self) -> Time {
        self.links.values().flatten().min().copied().unwrap_or(Time::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tallymesh_schemas::{Class, UnixMs};

    use super::*;
    use crate::Node;
    use crate::fixtures::identities;

    const NODES: usize = 8;

    const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// Longer than any step of these tests takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !holds().await {
            assert!(begin.elapsed() < PATIENCE, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// For each node, the number of other nodes with which it exchanges no rows.
    async fn beyond(nodes: &[Node]) -> Vec<usize> {
        let mut beyond = Vec::new();
        for node in nodes {
            let found = node.verify(Duration::from_millis(200)).await.unwrap();
            beyond.push(if found.converged() { found.beyond.len() } else { usize::MAX });
        }
        beyond
    }

    /// Each node adds to its count. Waits until all nodes read the total.
    async fn count(nodes: &[Node], total: &mut i64) {
        for node in nodes {
            node.cidr("inbound_cidr").unwrap().add(ADDRESS, 1).unwrap();
        }
        *total += nodes.len() as i64;
        until("all read what all count", async || {
            let reads = |node: &Node| node.cidr("inbound_cidr").unwrap().count(ADDRESS.into()).total;
            nodes.iter().all(|node| reads(node) == *total)
        })
        .await;
    }

    /// Over sockets: eight nodes in a ring, each with a link to two others, receive the counts of all. When one node stops
    /// without a goodbye, the others still do.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_go_round_in_a_circle_of_real_nodes() {
        let mut nodes: Vec<Node> = Vec::new();
        let names: [String; NODES] = std::array::from_fn(|n| format!("n{n}"));
        for (n, identity) in identities(&names.each_ref().map(String::as_str)).into_iter().enumerate() {
            let mut spec: tallymesh_schemas::StructureSpec = Class::InboundCidr.into();
            spec.on_dead = tallymesh_schemas::OnDead::Hold;
            let mut builder = Node::builder(&format!("n{n}")).identity(identity).replicate(spec);
            builder.bound = Bound { mesh: 4, rings: 1 };
            if let Some(first) = nodes.first() {
                builder = builder.seed(first.listen_addr().to_string());
            }
            nodes.push(builder.start().await.unwrap());
        }
        let mut total = 0;
        count(&nodes, &mut total).await;
        until("each has two links", async || beyond(&nodes).await == [NODES - 3; NODES]).await;
        count(&nodes, &mut total).await;
        nodes.swap_remove(3).abort().await;
        count(&nodes, &mut total).await;
        for node in nodes {
            node.abort().await;
        }
    }

    #[test]
    fn a_link_that_one_end_wants_lasts_for_a_while_and_ends_for_both() {
        let name = |n: usize| NodeName::new(&format!("n{n}")).unwrap();
        let others: Vec<_> = (1..NODES).map(name).collect();
        let mut topology = Topology::new(name(0), Bound { mesh: 4, rings: 1 });
        assert!(others.iter().all(|peer| topology.connected(peer)), "who knows of nobody links to everybody");
        others.iter().for_each(|peer| topology.joined(peer));
        assert_eq!(topology.poll(Time(1), others.iter()).unwrap().len(), NODES - 1, "for a while");
        assert!(topology.poll(Time(2), others.iter()).is_none(), "nothing has changed");
        let later = Time(1).after(LINGER);
        assert_eq!(topology.due(), later);
        let linked = topology.poll(later, others.iter()).unwrap();
        assert_eq!((linked.len(), topology.due()), (2, Time::NEVER));
        let stranger = others.iter().find(|peer| !linked.contains(*peer)).unwrap();
        let message = |complete| {
            let digest = tallymesh_schemas::message::Digest {
                incarnation: tallymesh_schemas::Incarnation(1),
                clock_ms: UnixMs::ZERO,
                answers: 0,
                complete,
                structures: Vec::new(),
                tombstones: Vec::new(),
            };
            Ok(Message::Digest(digest))
        };
        assert!(!topology.takes(later, stranger, &message(false)), "what is left of an old link");
        assert!(topology.takes(later, stranger, &message(true)), "the beginning of a new one");
        assert!(topology.takes(later, stranger, &message(false)));
        let end = later.after(LINGER);
        assert_eq!((topology.due(), topology.poll(end, others.iter()).unwrap()), (end, linked));
    }
}
