//! The typed handle of structures that count by address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Count, Counter, Hold, Listing, Structure};
use tallymesh_schemas::{NodeName, key};

use crate::clock::Clock;

/// Counts by address and CIDR block: `inbound_cidr`, `outbound_cidr` and others of their classes.
///
/// Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Cidr {
    structure: Arc<Structure>,
    clock: Clock,
}

impl Cidr {
    pub(crate) fn new(structure: Arc<Structure>, clock: Clock) -> Self {
        Self { structure, clock }
    }

    /// The counter of an address or block, for those that are counted often: it looks nothing up again.
    pub fn counter(&self, net: impl Into<IpNet>) -> Counter {
        let (key, n) = key::from_net(net.into());
        // The key of an address is a key of the structure's kind by construction.
        self.structure.counter(&key[..n]).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// Adds `n` to what this node counts for an address or block; a negative `n` removes. A step beyond
    /// [`MAX_STEP`](crate::MAX_STEP) either way counts as that much: whoever takes `n` from outside checks it first.
    pub fn add(&self, net: impl Into<IpNet>, n: i64) {
        let (key, len) = key::from_net(net.into());
        let added = self.structure.add(&key[..len], n);
        debug_assert!(added.is_ok(), "the key of an address is one");
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn hold(&self, addr: impl Into<IpNet>) -> Hold {
        self.counter(addr).hold()
    }

    /// Counts a connection until the guard is dropped, if the address then has at most `limit` cluster-wide, as far as
    /// this node knows. Exact among the threads of this node; other nodes may admit at the same time by what they know.
    #[must_use]
    pub fn try_hold(&self, addr: impl Into<IpNet>, limit: i64) -> Option<Hold> {
        self.counter(addr).try_hold(limit)
    }

    /// The count of an address or under a block. An address costs one look-up; a block takes the structure's lock and a
    /// descent that does not depend on what lies under it.
    pub fn count(&self, net: IpNet) -> Count {
        let net = key::canonical(net);
        if net.prefix_len() == net.max_prefix_len() {
            let (key, n) = key::from_net(net);
            return self.structure.count(&key[..n], self.clock.time());
        }
        self.structure.count_net(net, self.clock.time())
    }

    /// What one node counts for an address or under a block; `None` when nothing is known of the node. A block costs a
    /// look at each of that node's rows.
    pub fn count_from(&self, node: &NodeName, net: IpNet) -> Option<i64> {
        self.structure.count_net_from(node, net)
    }

    /// What is counted, address by address, or block by block with [`Listing::blocks`].
    pub fn entries(&self) -> Listing {
        self.structure.list_all()
    }

    /// Whether `addr` has room for one more under a limit: a reading, nothing is counted.
    pub fn has_room(&self, addr: IpAddr, limit: i64) -> bool {
        self.count(addr.into()).total < limit
    }

    /// The structure below.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }
}
