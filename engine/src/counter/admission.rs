//! Holds an address within limits of the address and of the blocks around it.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::mask::{Family, MaskError, MaskLimit};

use crate::counter::structure::{Counter, Hold, Structure};

/// Why a hold on an address failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The address, or a block around it, has no room.
    #[error("{}: {count} are counted and {limit} are allowed", shown(block))]
    Full {
        /// The block; the address itself with all its bits.
        block: IpNet,
        /// Its cluster-wide count, as far as this node knows it.
        count: i64,
        /// The limit.
        limit: i64,
    },
    /// There are limits, and none of them applies to the address's family.
    #[error("no limit applies to {addr}: name one for {family} addresses", family = Family::of(*addr))]
    NoLimit {
        /// The address.
        addr: IpAddr,
    },
    /// A mask is longer than an address.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The structure does not count by address.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn shown(block: &IpNet) -> String {
    if block.prefix_len() == block.max_prefix_len() { block.addr().to_string() } else { block.to_string() }
}

impl Structure {
    /// Counts one for an address until the guard is dropped, if the address and all blocks that `limits` names have room for
    /// it. The address counts once, whatever the number of masks. When the address is refused, nothing is counted.
    ///
    /// Check and addition are one step among all threads of this node that call this method; together they never exceed a
    /// limit. Counts of other nodes are as this node knows them. Holds without the block's mask, and plain additions, are
    /// seen by later checks but not refused. A node's row below zero counts as zero, so it makes no room.
    ///
    /// The mask of a block costs the structure's lock and a descent whose cost does not depend on the number of keys under
    /// the block. Limits of the address alone take no lock.
    ///
    /// # Errors
    /// [`HoldError`] names the first limit that has no room, or describes the fault in the limits.
    pub fn try_hold_within(
        self: &Arc<Self>,
        addr: IpAddr,
        limits: impl IntoIterator<Item = MaskLimit>,
    ) -> Result<Hold, HoldError> {
        let host = key::canonical(addr.into());
        let (key, n) = key::from_net(host);
        let key = &key[..n];
        key::check(self.kind(), key)?;
        let (mut named, mut applied, mut own_limit) = (false, false, None);
        // Held from the first read of a block until the address is counted, so that no other thread comes in between.
        let mut ledger = None;
        for limit in limits {
            named = true;
            let Some(block) = limit.block(host.addr())? else { continue };
            applied = true;
            let count = if block == host {
                own_limit = Some(own_limit.map_or(limit.limit, |least: i64| least.min(limit.limit)));
                self.taken(key)
            } else {
                let ledger = ledger.get_or_insert_with(|| {
                    let mut ledger = self.ledger.write();
                    self.commit_locked(&mut ledger);
                    ledger
                });
                ledger.views().sum_net(block).all.saturating_add(ledger.views().owed_in(block))
            };
            if count >= limit.limit {
                return Err(HoldError::Full { block, count, limit: limit.limit });
            }
        }
        if named && !applied {
            return Err(HoldError::NoLimit { addr: host.addr() });
        }
        let counter = self.counter(key)?;
        let hold = hold_one(&counter, host, own_limit)?;
        if let Some(ledger) = &mut ledger {
            // Commit immediately instead of in the cell's turn: a thread that has just changed the same cell may not have
            // listed it yet, and the next thread that reads the block must see this hold.
            self.commit_cell(ledger, &counter);
        }
        Ok(hold)
    }
}

/// Counts one for the address itself and checks its own limit in the same step.
fn hold_one(counter: &Counter, host: IpNet, limit: Option<i64>) -> Result<Hold, HoldError> {
    let Some(limit) = limit else { return Ok(counter.hold()) };
    counter.try_hold(limit).ok_or_else(|| {
        let count = counter.own().max(0).saturating_add(counter.others());
        HoldError::Full { block: host, count, limit }
    })
}
