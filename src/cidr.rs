//! The typed handle of structures whose keys are addresses.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Count, Hold, HoldError, Listing, Structure};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{MaskLimit, NodeName};

use crate::clock::Clock;
use crate::counter::Counter;

/// Counts by address and CIDR block: `inbound_cidr`, `outbound_cidr` and others of their classes.
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let inbound = node.cidr("inbound_cidr")?;
/// let peer: std::net::IpAddr = "192.0.2.7".parse()?;
/// let open = inbound.hold(peer)?; // counts one until it is dropped
/// println!("{} from the /24", inbound.count("192.0.2.0/24".parse()?).total);
/// let room = inbound.has_room(peer, 10);
/// let mut busiest = inbound.entries().blocks(1000);
/// busiest.sort_by_key(|block| -block.count);
/// # drop((open, room));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cidr {
    structure: Arc<Structure>,
    clock: Clock,
}

impl Cidr {
    pub(crate) fn new(structure: Arc<Structure>, clock: Clock) -> Self {
        Self { structure, clock }
    }

    /// The counter of an address. Use it for addresses that are counted often: it needs no further look-up.
    ///
    /// # Errors
    /// [`KeyError::Budget`] when there is no room for another key.
    pub fn counter(&self, addr: impl Into<IpAddr>) -> Result<Counter, KeyError> {
        self.structure.check(1)?;
        let (key, n) = key::from_net(addr.into().into());
        Ok(Counter::new(self.structure.counter(&key[..n])?, self.clock))
    }

    /// Adds `n` to this node's count for an address or block; a negative `n` removes. A step beyond
    /// [`MAX_STEP`](crate::MAX_STEP) in either direction is reduced to that value; check `n` first if it comes from outside.
    ///
    /// # Errors
    /// [`KeyError::Budget`] when there is no room for another key, [`KeyError::Total`] when the total of the key is at its
    /// bound. Then nothing is counted.
    pub fn add(&self, net: impl Into<IpNet>, n: i64) -> Result<(), KeyError> {
        self.structure.check(n)?;
        let (key, len) = key::from_net(net.into());
        self.structure.add(&key[..len], n)
    }

    /// Counts a connection until the guard is dropped.
    ///
    /// # Errors
    /// [`KeyError::Budget`] when there is no room for another key. Then nothing is counted.
    pub fn hold(&self, addr: impl Into<IpAddr>) -> Result<Hold, KeyError> {
        Ok(self.counter(addr)?.hold())
    }

    /// Counts a connection until the guard is dropped, if the address then has at most `limit` cluster-wide, as far as this
    /// node knows. The check is exact among the threads of this node. Other nodes may admit connections at the same time, by
    /// their own knowledge. [`Cidr::try_hold_within`] also limits blocks, and names the limit that refused.
    ///
    /// # Errors
    /// [`KeyError::Budget`] when there is no room for another key. Then nothing is counted.
    pub fn try_hold(&self, addr: impl Into<IpAddr>, limit: i64) -> Result<Option<Hold>, KeyError> {
        Ok(self.counter(addr)?.try_hold(limit))
    }

    /// Counts a connection until the guard is dropped, if the address and all blocks around it have room. Each limit is a
    /// prefix length and the cluster-wide maximum under that prefix, as far as this node knows. An admitted connection counts
    /// once for all masks. A refused one does not count.
    ///
    /// A prefix of up to 32 bits is for IPv4, a longer one for IPv6; [`MaskLimit`] also expresses shorter IPv6 prefixes. So one
    /// list serves both families. The check and the addition are one atomic step among the threads of this node that use this
    /// method. Other nodes may admit connections at the same time, by their own knowledge.
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
    /// [`HoldError::Full`] names the first block without room, its count and its limit. It is also an error if limits are given
    /// but none of them is for the address's family.
    pub fn try_hold_within<L>(&self, addr: impl Into<IpAddr>, limits: &[L]) -> Result<Hold, HoldError>
    where
        L: Into<MaskLimit> + Copy,
    {
        self.structure.check(1)?;
        self.structure.try_hold_within(addr.into(), limits.iter().map(|limit| (*limit).into()))
    }

    /// The count of an address or under a block. An address costs one look-up. A block costs the structure's lock and one tree
    /// descent, whose cost does not depend on the number of addresses in the block.
    pub fn count(&self, net: IpNet) -> Count {
        let net = key::canonical(net);
        if net.prefix_len() == net.max_prefix_len() {
            let (key, n) = key::from_net(net);
            return self.structure.count(&key[..n], self.clock.time());
        }
        self.structure.count_net(net, self.clock.time())
    }

    /// One node's count for an address or under a block; `None` when the node is unknown. A block costs a scan of that node's
    /// rows.
    pub fn count_from(&self, node: &NodeName, net: IpNet) -> Option<i64> {
        self.structure.count_net_from(node, net)
    }

    /// The counts, address by address, or block by block with [`Listing::blocks`].
    pub fn entries(&self) -> Listing {
        self.structure.list_all()
    }

    /// Whether `addr` has room for one more connection under a limit. Only reads; nothing is counted.
    pub fn has_room(&self, addr: IpAddr, limit: i64) -> bool {
        self.count(addr.into()).total < limit
    }

    /// The structure of the engine, for measurements of the replication.
    #[doc(hidden)]
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }
}
