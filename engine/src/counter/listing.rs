//! Listings: the entries of a structure in key order, and the blocks of an address tree, page by page.
//!
//! A listing reads the live index, in slices under the ledger's lock. Between two slices other threads go on. So a listing of any
//! length takes the memory of one page, and each slice shows the counts at the moment when it is read. The view of one node has
//! no sums of blocks: for a listing of blocks its rows are collected, in slices as well, when the listing begins.
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

/// Number of keys that are read under the lock at a time.
const SLICE: usize = 1 << 10;

/// Number of hosts whose blocks are read under the lock at a time. Each has a sum for every bit of its prefix at most.
const SLICE_OF_BLOCKS: usize = 1 << 6;

/// A node with at most this number of rows is read by its rows, under the lock, and not by the keys of all nodes.
const FEW: usize = 1 << 12;

/// A listing that is read page by page.
#[derive(Debug)]
pub struct Listing {
    structure: Arc<Structure>,
    view: View,
    /// The last key that was listed.
    at: Option<Vec<u8>>,
}

/// What is listed.
#[derive(Debug)]
enum View {
    /// The cluster-wide view.
    All,
    /// The view of one node.
    Of(NodeName),
    /// The view of one node, collected.
    Collected(Collected),
}

/// Keys in order with their values.
trait Ordered {
    /// The first key from `from` on.
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)>;
}

/// Keys in order with the sums of blocks.
trait Sums: Ordered {
    fn sum_net(&self, net: IpNet) -> i64;
}

/// The rows of one node, in order of key. Keys of which the node has no rows count zero.
struct OfNode<'a> {
    ledger: &'a Ledger,
    runs: Vec<(&'a Actor, &'a ActorRows)>,
}

impl<'a> OfNode<'a> {
    fn new(ledger: &'a Ledger, node: &NodeName) -> Self {
        Self { ledger, runs: ledger.counted_runs(node).collect() }
    }

    fn rows(&self) -> usize {
        self.runs.iter().map(|(_, actor_rows)| actor_rows.len()).sum()
    }
}

impl Ordered for OfNode<'_> {
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)> {
        let id = self.ledger.index().seek(from, self.ledger.cells())?;
        let rows = self.runs.iter().filter_map(|(actor, rows)| Some((*actor, rows.find(id, self.ledger.cells())?.1)));
        let counts = rows.map(|(actor, state)| self.ledger.views().value(actor, id, &state.row));
        Some((self.ledger.cells().key_of(id), counts.fold(0, i64::saturating_add)))
    }
}

impl Ordered for Ledger {
    fn seek(&self, from: Bound<&[u8]>) -> Option<(CellKey, i64)> {
        let id = self.index().seek(from, self.cells())?;
        let (key, cell) = (self.cells().key_of(id), self.cells().get(id));
        let count = self.views().own_value(&key, cell.totals()).saturating_add(cell.others());
        Some((key, count))
    }
}

impl Sums for Ledger {
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
    /// The rows of a node that has few. O(rows), under the lock.
    fn of_few(of: &OfNode<'_>) -> Self {
        let ledger = of.ledger;
        let runs = of.runs.iter();
        let rows = runs.flat_map(|(actor, actor_rows)| actor_rows.live().map(move |(_, state)| (*actor, state)));
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
        Self::new(rows)
    }

    /// The rows of a node, in slices.
    fn of_many(structure: &Structure, node: &NodeName) -> Self {
        let mut rows = Vec::new();
        let mut at = None;
        let push = |Found { key, count, .. }: Found<'_, OfNode<'_>>, rows: &mut Vec<Entry>| {
            if count != 0 {
                rows.push(Entry { key: key.to_vec(), count });
            }
        };
        while read_slice(&OfNode::new(&structure.ledger.read(), node), &mut at, (SLICE, usize::MAX), &mut rows, push) {}
        Self::new(rows)
    }

    /// Rows in order of key.
    fn new(rows: Vec<Entry>) -> Self {
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
}

impl Sums for Collected {
    fn sum_net(&self, net: IpNet) -> i64 {
        let (first, n) = key::from_net(net);
        let from = self.rows.partition_point(|row| row.key.as_slice() < &first[..n]);
        let last = beyond(net);
        let to = self.rows.partition_point(|row| row.key.as_slice() <= &last[..n]);
        within(self.before[to] - self.before[from])
    }
}

/// A key behind all keys under a block, and before all other keys that follow the block.
pub(crate) fn beyond(net: IpNet) -> [u8; key::ADDRESS_KEY_BYTES] {
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
        let of = OfNode::new(&ledger, node);
        let view = if of.rows() <= FEW { View::Collected(Collected::of_few(&of)) } else { View::Of(node.clone()) };
        Some(Listing { structure: Arc::clone(self), view, at: None })
    }

    /// Lists the cluster-wide view.
    pub fn list_all(self: &Arc<Self>) -> Listing {
        Listing { structure: Arc::clone(self), view: View::All, at: None }
    }

    /// Returns the sum of one node's counts under an address block. It reads the rows of that node, or the keys under the block,
    /// in slices.
    pub fn count_net_from(&self, node: &NodeName, net: IpNet) -> Option<i64> {
        let net = key::canonical(net);
        self.commit();
        {
            let ledger = self.ledger.read();
            ledger.latest(node)?;
            let of = OfNode::new(&ledger, node);
            if of.rows() <= FEW {
                let sum = |(actor, rows): &(&Actor, &ActorRows)| ledger.views().sum_net_of(actor, rows, net);
                return Some(of.runs.iter().map(sum).fold(0, i64::saturating_add));
            }
        }
        let (first, last) = (key::from_net(net), beyond(net));
        // The first key under the block, or a larger block that begins at the same address.
        let mut at = Some(first.0[..first.1 - 1].to_vec());
        let mut sum = vec![0_i128];
        let add = |Found { key, count, .. }: Found<'_, OfNode<'_>>, sum: &mut Vec<i128>| {
            if key::to_net(key).is_ok_and(|key| net.contains(&key)) {
                sum[0] += i128::from(count);
            }
        };
        while at.as_deref().is_some_and(|at| at <= &last[..first.1])
            && read_slice(&OfNode::new(&self.ledger.read(), node), &mut at, (SLICE, usize::MAX), &mut sum, add)
        {
        }
        Some(within(sum[0]))
    }
}

impl Listing {
    /// Returns the next entries in key order, `limit` at most, without keys whose count is zero. Empty at the end.
    pub fn entries(&mut self, limit: usize) -> Vec<Entry> {
        let kind = self.structure.kind();
        self.structure.commit();
        let (mut page, at) = (Vec::new(), &mut self.at);
        match &self.view {
            View::All => {
                while read_slice(&*self.structure.ledger.read(), at, (SLICE, limit), &mut page, entry_at(kind)) {}
            }
            View::Of(node) => {
                let mut read = |of: &OfNode<'_>| read_slice(of, at, (SLICE, limit), &mut page, entry_at(kind));
                while read(&OfNode::new(&self.structure.ledger.read(), node)) {}
            }
            View::Collected(rows) => while read_slice(rows, at, (SLICE, limit), &mut page, entry_at(kind)) {},
        }
        page
    }

    /// Returns the next blocks of an address tree in address order, about `limit` at most: every host with a count, and
    /// every block with a count at which the rows below it branch. A block comes before its contents. Empty at the end, and
    /// for a structure that is not an address tree.
    pub fn blocks(&mut self, limit: usize) -> Vec<Block> {
        if self.structure.kind() != Kind::CidrTree {
            return Vec::new();
        }
        self.structure.commit();
        if let View::Of(node) = &self.view {
            self.view = View::Collected(Collected::of_many(&self.structure, node));
        }
        let (mut page, at) = (Vec::new(), &mut self.at);
        let most = (SLICE_OF_BLOCKS, limit);
        match &self.view {
            View::Collected(rows) => while read_slice(rows, at, most, &mut page, blocks_at) {},
            _ => while read_slice(&*self.structure.ledger.read(), at, most, &mut page, blocks_at) {},
        }
        page
    }
}

/// A key that a listing has reached.
struct Found<'a, R> {
    rows: &'a R,
    key: &'a [u8],
    count: i64,
    /// The key before it.
    before: Option<&'a [u8]>,
}

/// Reads the next keys behind `at`, `most` at most, and passes each to `visit`. Returns whether to read on: the page has not
/// reached its limit, and there may be further keys.
fn read_slice<R: Ordered, T>(
    rows: &R,
    at: &mut Option<Vec<u8>>,
    (most, limit): (usize, usize),
    page: &mut Vec<T>,
    mut visit: impl FnMut(Found<'_, R>, &mut Vec<T>),
) -> bool {
    for _ in 0..most {
        if page.len() >= limit {
            return false;
        }
        let Some((key, count)) = rows.seek(at.as_deref().map_or(Bound::Unbounded, Bound::Excluded)) else {
            return false;
        };
        visit(Found { rows, key: &key, count, before: at.as_deref() }, page);
        *at = Some(key.to_vec());
    }
    true
}

/// Lists a key as an entry, if it counts.
fn entry_at<R>(kind: Kind) -> impl Fn(Found<'_, R>, &mut Vec<Entry>) {
    move |Found { key, count, .. }, page| {
        if count != 0 && !key::is_sharing(kind, key) {
            page.push(Entry { key: key.to_vec(), count });
        }
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
fn blocks_at<R: Sums>(Found { rows, key, before, .. }: Found<'_, R>, page: &mut Vec<Block>) {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell as Count;

    use super::*;

    /// Keys without end that all count zero.
    struct Zeros(Count<usize>);

    impl Ordered for Zeros {
        fn seek(&self, _: Bound<&[u8]>) -> Option<(CellKey, i64)> {
            self.0.set(self.0.get() + 1);
            Some((CellKey::new(&self.0.get().to_be_bytes()), 0))
        }
    }

    /// However many keys count nothing, a slice under the lock reads a bounded number of them.
    #[test]
    fn a_slice_reads_a_bounded_number_of_keys() {
        let (zeros, mut page, mut at) = (Zeros(Count::new(0)), Vec::new(), None);
        for slices in 1..=3 {
            assert!(read_slice(&zeros, &mut at, (SLICE, 10), &mut page, entry_at(Kind::GaugeTable)));
            assert_eq!((zeros.0.get(), page.len()), (slices * SLICE, 0));
        }
    }
}
