//! The overlay: which pairs of nodes have a link. In a small cluster all pairs have one; in a large cluster each node has a
//! bounded number of links.
//!
//! Above the bound the members lie on [`RINGS`](crate::bounds::RINGS) rings. Each ring orders them by another hash of their
//! names, and a node has a link to its two neighbours on every ring (Law and Siu, "Distributed construction of random expander
//! networks", 2003). Both ends of an edge compute it by themselves, without negotiation. Each ring alone connects all members.
//! Together the rings are an expander: a path of few links joins any two members, and the overlay stays connected when a large
//! part of the nodes dies at once. A member that joins or leaves changes the neighbours of only two nodes on each ring.

use crate::actor::NodeName;

/// A place on a ring. The name separates nodes with equal hashes.
type Place = (u64, NodeName);

/// This node's own place on a ring, and its two neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seat {
    before: Place,
    own: Place,
    behind: Place,
}

impl Seat {
    /// Whether a place is that of a neighbour, or would be if its node were alive.
    fn adjoins(&self, place: &Place) -> bool {
        within(&self.own, place, &self.behind) || within(&self.before, place, &self.own)
    }
}

/// Whether `place` lies on the way round from `from` to `to`, ends included. From a place to itself this is the whole ring.
fn within(from: &Place, place: &Place, to: &Place) -> bool {
    if from < to { from <= place && place <= to } else { from <= place || place <= to }
}

/// 64-bit FNV-1a of the ring and the name, mixed afterwards: FNV-1a alone leaves similar names close together.
fn place(ring: u8, name: &NodeName) -> Place {
    let bytes = [ring].into_iter().chain(name.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash ^ (hash >> 29), name.clone())
}

/// The links of one node in the overlay.
#[derive(Debug, Clone)]
pub struct Overlay {
    us: NodeName,
    mesh: usize,
    rings: u8,
    bounded: bool,
    seats: Vec<Seat>,
}

impl Overlay {
    /// An overlay for a node that knows no other members yet. Up to `mesh` members every node has a link to every other one;
    /// above that, each node has two on each ring. All nodes of a cluster must use the same numbers:
    /// [`MESH`](crate::bounds::MESH) and [`RINGS`](crate::bounds::RINGS).
    pub fn new(us: NodeName, mesh: usize, rings: u8) -> Self {
        Self { us, mesh, rings, bounded: false, seats: Vec::new() }
    }

    /// Updates the links from the other alive members, in any order. Once links are bounded, they stay bounded until a quarter
    /// of the bound is gone: so a member that leaves and returns does not make all nodes link to all others and back.
    /// O(members).
    pub fn update<'a>(&mut self, others: impl Iterator<Item = &'a NodeName> + Clone) {
        let members = others.clone().filter(|name| **name != self.us).count() + 1;
        self.bounded = members > if self.bounded { self.mesh - self.mesh / 4 } else { self.mesh };
        self.seats.clear();
        if self.bounded {
            self.seats.extend((0..self.rings).map(|ring| seat(ring, &self.us, others.clone())));
        }
    }

    /// Whether links are bounded, so that not all pairs of nodes have one.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Whether this node should have a link to another one. For a member that is not alive: whether it would if it were.
    pub fn links_to(&self, name: &NodeName) -> bool {
        let adjoins = || self.seats.iter().zip(0..).any(|(seat, ring)| seat.adjoins(&place(ring, name)));
        *name != self.us && (!self.bounded || adjoins())
    }
}

fn seat<'a>(ring: u8, us: &NodeName, others: impl Iterator<Item = &'a NodeName>) -> Seat {
    let own = place(ring, us);
    let (mut before, mut behind, mut first, mut last) = (None::<Place>, None::<Place>, own.clone(), own.clone());
    for name in others.filter(|name| *name != us) {
        let place = place(ring, name);
        if place < own && before.as_ref().is_none_or(|before| *before < place) {
            before = Some(place.clone());
        }
        if place > own && behind.as_ref().is_none_or(|behind| place < *behind) {
            behind = Some(place.clone());
        }
        if place < first {
            first = place;
        } else if place > last {
            last = place;
        }
    }
    Seat { before: before.unwrap_or(last), own, behind: behind.unwrap_or(first) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::bounds;

    fn names(n: usize) -> Vec<NodeName> {
        (0..n).map(|n| NodeName::new(&format!("node-{n}")).unwrap()).collect()
    }

    fn links(names: &[NodeName], mesh: usize) -> BTreeMap<NodeName, BTreeSet<NodeName>> {
        let of = |us: &NodeName| {
            let mut overlay = Overlay::new(us.clone(), mesh, bounds::RINGS);
            overlay.update(names.iter());
            names.iter().filter(|peer| overlay.links_to(peer)).cloned().collect()
        };
        names.iter().map(|name| (name.clone(), of(name))).collect()
    }

    /// How many of the remaining nodes the first of them can reach, and in how many steps.
    fn reach(links: &BTreeMap<NodeName, BTreeSet<NodeName>>, left: &BTreeSet<NodeName>) -> (usize, usize) {
        let mut found: BTreeSet<_> = left.first().cloned().into_iter().collect();
        let mut steps = 0;
        loop {
            let next: BTreeSet<_> = found.iter().flat_map(|name| &links[name]).filter(|n| left.contains(*n)).collect();
            let more: Vec<_> = next.into_iter().filter(|name| !found.contains(*name)).cloned().collect();
            if more.is_empty() {
                return (found.len(), steps);
            }
            steps += 1;
            found.extend(more);
        }
    }

    #[test]
    fn small_clusters_are_a_mesh() {
        for n in [1, 2, bounds::MESH] {
            assert!(links(&names(n), bounds::MESH).values().all(|peers| peers.len() == n - 1));
        }
    }

    #[test]
    fn links_are_bounded_symmetrical_and_connect_all() {
        for (n, steps) in [(bounds::MESH + 1, 3), (256, 4), (1000, 5)] {
            let names = names(n);
            let links = links(&names, bounds::MESH);
            for (name, peers) in &links {
                assert!((6..=2 * usize::from(bounds::RINGS)).contains(&peers.len()), "{name} has {}", peers.len());
                assert!(peers.iter().all(|peer| links[peer].contains(name)), "{name}: both ends agree");
            }
            let (reached, took) = reach(&links, &names.into_iter().collect());
            assert!(reached == n && took <= steps, "{reached} of {n} in {took} steps");
        }
    }

    #[test]
    fn a_third_may_die_at_once() {
        let names = names(1000);
        let links = links(&names, bounds::MESH);
        for rest in 0..3 {
            let left: BTreeSet<_> =
                names.iter().enumerate().filter(|(n, _)| n % 3 != rest).map(|(_, n)| n.clone()).collect();
            assert_eq!(reach(&links, &left).0, left.len());
        }
    }

    #[test]
    fn a_new_node_changes_few_links() {
        let names = names(501);
        let (before, after) = (links(&names[..500], bounds::MESH), links(&names, bounds::MESH));
        let changed = before.iter().filter(|(name, peers)| after[*name] != **peers).count();
        assert!((2..=2 * usize::from(bounds::RINGS)).contains(&changed), "{changed} nodes changed links");
    }

    #[test]
    fn dead_nodes_keep_links_to_their_neighbours() {
        let names = names(200);
        let after = links(&names, bounds::MESH);
        for (us, expected) in after.iter().filter(|(us, _)| **us != names[199]) {
            let mut overlay = Overlay::new(us.clone(), bounds::MESH, bounds::RINGS);
            overlay.update(names[..199].iter());
            assert_eq!(overlay.links_to(&names[199]), expected.contains(&names[199]), "{us}");
        }
    }

    #[test]
    fn a_member_that_comes_and_goes_does_not_turn_links_into_a_mesh_and_back() {
        let names = names(20);
        let mut overlay = Overlay::new(names[0].clone(), 12, 1);
        for (members, bounded) in [(12, false), (13, true), (12, true), (10, true), (9, false), (12, false)] {
            overlay.update(names[..members].iter());
            assert_eq!(overlay.is_bounded(), bounded, "{members} members");
        }
    }
}
