//! The typed handle of structures that count by address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Count, Counter, Hold, HoldError, Listing, Structure};
use tallymesh_schemas::{MaskLimit, NodeName, key};

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

    /// The counter of an address, for those that are counted often: it looks nothing up again.
    pub fn counter(&self, addr: impl Into<IpAddr>) -> Counter {
        let (key, n) = key::from_net(addr.into().into());
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
    pub fn hold(&self, addr: impl Into<IpAddr>) -> Hold {
        self.counter(addr).hold()
    }

    /// Counts a connection until the guard is dropped, if the address then has at most `limit` cluster-wide, as far as
    /// this node knows. Exact among the threads of this node; other nodes may admit at the same time by what they know.
    /// [`Cidr::try_hold_within`] also limits blocks, and says what was in the way.
    #[must_use]
    pub fn try_hold(&self, addr: impl Into<IpAddr>, limit: i64) -> Option<Hold> {
        self.counter(addr).try_hold(limit)
    }

    /// Counts a connection until the guard is dropped, if the address and the blocks that it lies in all have room: each
    /// limit is a prefix length and what may count under that prefix cluster-wide, as far as this node knows. The connection
    /// counts once, however many masks are checked, and not at all when it is refused.
    ///
    /// A prefix of up to 32 bits is IPv4's, a longer one IPv6's; [`MaskLimit`] also names shorter IPv6 prefixes. So one list
    /// serves both families. Check and addition are one step among the threads of this node that hold by this method; other
    /// nodes may admit at the same time by what they know.
    ///
    /// ```no_run
    /// # fn example(node: &tallymesh::Node, peer_ip: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
    /// let inbound = node.cidr("inbound_cidr")?;
    /// match inbound.try_hold_within(peer_ip, &[(32, 10), (24, 30), (128, 10), (64, 30)]) {
    ///     Ok(open) => drop(open), // counts until it is dropped
    ///     // 192.0.2.0/24: 30 are counted and 30 are allowed
    ///     Err(refused) => println!("{refused}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HoldError::Full`] names the first block without room, its count and its limit. It is also an error when limits are
    /// given and none of them is of the address's family.
    pub fn try_hold_within<L>(&self, addr: impl Into<IpAddr>, limits: &[L]) -> Result<Hold, HoldError>
    where
        L: Into<MaskLimit> + Copy,
    {
        self.structure.try_hold_within(addr.into(), limits.iter().map(|limit| (*limit).into()))
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
