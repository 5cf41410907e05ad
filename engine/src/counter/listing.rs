//! Listings: the entries of a structure in key order, and the blocks of an address tree, page by page.
//!
//! A listing of the cluster-wide view reads the live index, one page at a time under the ledger's lock. So a listing of any
//! length takes the memory of one page, and each page shows the counts at the moment when it is read. The view of one node
//! has no index: its rows are collected and sorted when the listing begins.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "positions are inside a key that this node has encoded"
)]

use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, Kind, NodeName, key};

use crate::counter::ledger::Ledger;
use crate::counter::structure::{Entry, Structure};
use crate::counter::sums::within;
use crate::keyspace::id::KeyOf;
use crate::keyspace::key::CellKey;
use crate::rows::actor_rows::ActorRows;
use crate::shape::Role;

/// A block of an address tree and the count under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Block {
    /// The block; a host has the full prefix length.
    pub net: IpNet,
    /// The count under it.
    pub count: i64,
}

/// A listing that is read page by page.
#[derive(Debug)]
pub struct Listing {
    structure: Arc<Structure>,
    /// One node's rows in order, with the sums before each row; `None` for the cluster-wide view.
    collected: Option<Collected>,
    /// The last key that was listed.
    at: Option<Vec<u8>>,
}

/// Keys in order with their values.
trait Ordered {
    /// The first key from `from` on.
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)>;

    fn sum_net(&self, net: IpNet) -> i64;
}

impl Ordered for Ledger {
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)> {
        let id = self.index().seek(from, self.cells())?;
        let (key, cell) = (self.cells().key_of(id), self.cells().get(id));
        let count = self.views().own_value(&key, cell.totals()).saturating_add(cell.others());
        Some((key, count))
    }

    fn sum_net(&self, net: IpNet) -> i64 {
        self.views().sum_net(net).all
    }
}

#[derive(Debug)]
struct Collected {
    rows: Vec<Entry>,
    /// The sum of the counts before each row.
    before: Vec<i128>,
}

impl Collected {
    fn new<'a>(ledger: &Ledger, runs: impl Iterator<Item = (&'a Actor, &'a ActorRows)>) -> Self {
        let rows = runs.flat_map(|(actor, actor_rows)| actor_rows.live().map(move |(_, state)| (actor, state)));
        let counting = rows.filter(|(_, state)| ledger.cells().get(state.cell).role() != Role::Clears);
        let rows = counting.map(|(actor, state)| {
            let count = ledger.views().value(actor, state.cell, &state.row);
            Entry { key: ledger.cells().key_of(state.cell).to_vec(), count }
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        rows.dedup_by(|later, first| {
            let same = later.key == first.key;
            first.count = first.count.saturating_add(if same { later.count } else { 0 });
            same
        });
        let mut sum = 0_i128;
        let mut before = Vec::with_capacity(rows.len() + 1);
        for row in &rows {
            before.push(sum);
            sum += i128::from(row.count);
        }
        before.push(sum);
        Self { rows, before }
    }
}

impl Ordered for Collected {
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)> {
        let at = match from {
            Bound::Included(key) => self.rows.partition_point(|row| row.key.as_slice() < key),
            Bound::Excluded(key) => self.rows.partition_point(|row| row.key.as_slice() <= key),
            Bound::Unbounded => 0,
        };
        self.rows.get(at).map(|row| (CellKey::new(&row.key), row.count))
    }

    fn sum_net(&self, net: IpNet) -> i64 {
        let (first, n) = key::from_net(net);
        let from = self.rows.partition_point(|row| row.key.as_slice() < &first[..n]);
        let last = beyond(net);
        let to = self.rows.partition_point(|row| row.key.as_slice() <= &last[..n]);
        within(self.before[to] - self.before[from])
    }
}

/// A key behind all keys under a block, and before all other keys that follow the block.
fn beyond(net: IpNet) -> [u8; key::ADDRESS_KEY_BYTES] {
    let (mut last, n) = key::from_net(IpNet::from(net.broadcast()));
    last[n - 1] = u8::MAX;
    last
}

impl Structure {
    /// Lists the cluster-wide view, or the view of one node: gauges of its latest run, events of all its runs. Returns
    /// `None` when this node knows nothing of that node.
    pub fn list(self: &Arc<Self>, from: Option<&NodeName>) -> Option<Listing> {
        let Some(node) = from else { return Some(self.list_all()) };
        self.commit();
        let ledger = self.ledger.read();
        ledger.latest(node)?;
        let collected = Some(Collected::new(&ledger, ledger.counted_runs(node)));
        Some(Listing { structure: Arc::clone(self), collected, at: None })
    }

    /// Lists the cluster-wide view.
    pub fn list_all(self: &Arc<Self>) -> Listing {
        Listing { structure: Arc::clone(self), collected: None, at: None }
    }
}

impl Listing {
    /// Returns the next entries in key order, about `limit` at most, without keys whose count is zero. Empty at the end.
    pub fn entries(&mut self, limit: usize) -> Vec<Entry> {
        let kind = self.structure.kind();
        self.page(limit, |rows, key, count, _, page| {
            let _ = rows;
            if count != 0 && !key::is_sharing(kind, key) {
                page.push(Entry { key: key.to_vec(), count });
            }
        })
    }

    /// Returns the next blocks of an address tree in address order, about `limit` at most: every host with a count, and
    /// every block with a count at which the rows below it branch. A block comes before its contents. Empty at the end, and
    /// for a structure that is not an address tree.
    pub fn blocks(&mut self, limit: usize) -> Vec<Block> {
        if self.structure.kind() != Kind::CidrTree {
            return Vec::new();
        }
        self.page(limit, |rows, key, count, before, page| blocks_at(rows, key, count, before, page))
    }

    fn page<T>(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(&dyn Ordered, &[u8], i64, Option<&[u8]>, &mut Vec<T>),
    ) -> Vec<T> {
        self.structure.commit();
        let ledger = self.structure.ledger.read();
        let rows: &dyn Ordered = match &self.collected {
            Some(collected) => collected,
            None => &*ledger,
        };
        let mut page = Vec::new();
        let mut at = self.at.take();
        while page.len() < limit {
            let from = at.as_deref();
            let Some((key, count)) = rows.seek(from.map_or(Bound::Unbounded, Bound::Excluded)) else { break };
            visit(rows, &key, count, from, &mut page);
            at = Some(key.to_vec());
        }
        self.at = at;
        page
    }
}

/// The length of the longest prefix that both keys share; `None` for different address families.
fn common(a: IpNet, b: IpNet) -> Option<u8> {
    let bits = match (a.network(), b.network()) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    Some((bits as u8).min(a.prefix_len()).min(b.prefix_len()))
}

/// Lists the blocks whose first row is `key`, and then the row itself.
fn blocks_at(rows: &dyn Ordered, key: &[u8], _: i64, before: Option<&[u8]>, page: &mut Vec<Block>) {
    let Ok(net) = key::to_net(key) else { return };
    let block = |len: u8| IpNet::new(net.addr(), len).map_or(net, |block| block.trunc());
    // Blocks that also hold the previous row were listed with it, or with an earlier row.
    let listed = before.and_then(|key| key::to_net(key).ok()).and_then(|before| common(before, net));
    let mut lengths = Vec::new();
    let mut next = rows.seek(Bound::Excluded(key));
    while let Some(other) = next.and_then(|(key, _)| key::to_net(&key).ok()) {
        let Some(len) = common(net, other).filter(|len| listed.is_none_or(|listed| *len > listed)) else { break };
        if len < net.prefix_len() {
            lengths.push(len);
        }
        let (_, n) = key::from_net(net);
        next = rows.seek(Bound::Excluded(&beyond(block(len))[..n]));
    }
    let blocks = lengths.iter().rev().map(|len| block(*len)).chain([net]);
    // The counts under a block may add up to zero; then the block has no count.
    page.extend(blocks.map(|net| Block { net, count: rows.sum_net(net) }).filter(|block| block.count != 0));
}
