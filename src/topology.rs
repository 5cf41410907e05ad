//! With which of the members that there are connections to rows are exchanged: all of them in small clusters, those that the
//! overlay names in large ones.
//!
//! Every pair of members has a connection, by which membership asks; only over some of these the replicas have a link. Both ends
//! compute which by themselves, of the members that live as each sees it. Where they see that differently, the one that wants the
//! link begins it, with a digest of everything, and the other one takes it for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_engine::Time;
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{NodeName, Overlay, limits};

/// How long rows are exchanged with a peer that the overlay does not name any more, or not yet: until the news of who lives has
/// gone round.
const LINGER: Duration = Duration::from_secs(2);

/// Members up to which everybody exchanges rows with everybody, and rings on which they lie above that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) mesh: usize,
    pub(crate) rings: u8,
}

impl Default for Bound {
    fn default() -> Self {
        Self { mesh: limits::MESH, rings: limits::RINGS }
    }
}

#[derive(Debug)]
pub(crate) struct Topology {
    overlay: Overlay,
    alive: BTreeSet<NodeName>,
    /// With whom rows are exchanged; until when, where the overlay does not name them.
    links: BTreeMap<NodeName, Option<Time>>,
    /// Who lives has changed since the links were last looked at.
    changed: bool,
}

impl Topology {
    pub(crate) fn new(us: NodeName, bound: Bound) -> Self {
        let overlay = Overlay::new(us, bound.mesh, bound.rings);
        Self { overlay, alive: BTreeSet::new(), links: BTreeMap::new(), changed: false }
    }

    /// A member lives, or does not.
    pub(crate) fn member(&mut self, name: &NodeName, lives: bool) {
        let changed = if lives { self.alive.insert(name.clone()) } else { self.alive.remove(name) };
        if changed {
            self.overlay.update(self.alive.iter());
            self.changed = true;
        }
    }

    /// There is a connection to a peer: whether there is to be a link.
    pub(crate) fn connected(&mut self, peer: &NodeName) -> bool {
        self.links.remove(peer);
        let wanted = self.overlay.links_to(peer);
        if wanted {
            self.links.insert(peer.clone(), None);
        }
        wanted
    }

    /// Whether rows are to be exchanged with a member.
    pub(crate) fn links_to(&self, name: &NodeName) -> bool {
        self.overlay.links_to(name)
    }

    /// The connection to a peer is gone.
    pub(crate) fn disconnected(&mut self, peer: &NodeName) {
        self.links.remove(peer);
    }

    /// Whether a message of a peer is for a link. A digest of everything, with which every link begins, makes one; what comes
    /// besides was sent by one who has not heard yet that there is none any more. What is no message is for the replica to refuse.
    pub(crate) fn takes(&mut self, now: Time, peer: &NodeName, message: &[u8]) -> bool {
        if !self.links.contains_key(peer) {
            let begins = match Message::decode(message) {
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

    /// Of these peers, the ones with whom there is to be a link now, if that may have changed. O(peers) then.
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

    /// When the next link ends.
    pub(crate) fn due(&self) -> Time {
        self.links.values().flatten().min().copied().unwrap_or(Time::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tallymesh_schemas::Class;

    use super::*;
    use crate::Node;
    use crate::fixtures::identities;

    const NODES: usize = 8;

    const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// More than any of this takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !holds().await {
            assert!(begin.elapsed() < PATIENCE, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// With how many others none of these nodes exchanges rows.
    async fn beyond(nodes: &[Node]) -> Vec<usize> {
        let mut beyond = Vec::new();
        for node in nodes {
            let found = node.verify(Duration::from_millis(200)).await.unwrap();
            beyond.push(if found.converged() { found.beyond.len() } else { usize::MAX });
        }
        beyond
    }

    /// Each node counts something more; all are to read it.
    async fn count(nodes: &[Node], total: &mut i64) {
        for node in nodes {
            node.cidr("inbound_cidr").unwrap().add(ADDRESS, 1);
        }
        *total += nodes.len() as i64;
        until("all read what all count", async || {
            let reads = |node: &Node| node.cidr("inbound_cidr").unwrap().count(ADDRESS.into()).total;
            nodes.iter().all(|node| reads(node) == *total)
        })
        .await;
    }

    /// Over sockets: eight nodes in a circle, each with a link to two others, hear of what all count. When one is gone without a
    /// word, the others still do.
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
        others.iter().for_each(|peer| topology.member(peer, true));
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
                clock_ms: 0,
                answers: 0,
                complete,
                structures: Vec::new(),
                tombstones: Vec::new(),
            };
            let mut bytes = Vec::new();
            Message::Digest(digest).encode(&mut bytes).unwrap();
            bytes
        };
        assert!(!topology.takes(later, stranger, &message(false)), "what is left of an old link");
        assert!(topology.takes(later, stranger, &message(true)), "the beginning of a new one");
        assert!(topology.takes(later, stranger, &message(false)));
        let end = later.after(LINGER);
        assert_eq!((topology.due(), topology.poll(end, others.iter()).unwrap()), (end, linked));
    }
}
