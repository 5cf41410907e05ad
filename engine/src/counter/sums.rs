//! Sums under address blocks.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::ops::Bound;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, key};

use crate::counter::views::Views;
use crate::index::nodes::Sum;
use crate::keyspace::id::KeyOf;
use crate::rows::actor_rows::ActorRows;

impl Views {
    /// The sum under a key prefix of `bits` bits.
    pub(super) fn sum(&self, prefix: &[u8], bits: usize) -> Sum {
        self.index.sum(prefix, bits, &*self.cells)
    }

    /// The sum of the keys inside a block.
    pub(crate) fn sum_net(&self, net: IpNet) -> Sum {
        let most = self.most.saturating_mul(2).saturating_mul(self.indexed);
        // As a rule no sum can wrap, whatever the distribution of the keys.
        if most > i64::MAX as u64 { self.sum_net_slowly(net) } else { self.sum_net_of_tree(net) }
    }

    /// The same sum, computed key by key when counts are so large that 64-bit sums may have wrapped. O(keys in the block).
    fn sum_net_slowly(&self, net: IpNet) -> Sum {
        let (first, n) = key::from_net(net);
        let (mut all, mut own) = (0_i128, 0_i128);
        let mut next = self.index.seek(Bound::Included(&first[..n - 1]), &*self.cells);
        while let Some(id) = next {
            let key = self.cells.key_of(id);
            match key::to_net(&key) {
                Ok(host) if net.contains(&host) => {
                    let part = self.own_value(&key, self.cells.get(id).totals());
                    (all, own) =
                        (all + i128::from(part) + i128::from(self.cells.get(id).others()), own + i128::from(part));
                }
                // A larger block that begins at the same address as this one.
                Ok(host) if host.contains(&net) => {}
                _ => break,
            }
            next = self.index.seek(Bound::Excluded(&key), &*self.cells);
        }
        Sum { all: within(all), own: within(own) }
    }

    fn sum_net_of_tree(&self, net: IpNet) -> Sum {
        let (key, n) = key::from_net(net);
        let mut sum = self.sum(&key[..n], 8 + usize::from(net.prefix_len()));
        if self.blocks > 0 {
            // Larger blocks that begin at the same address share the bytes up to their length, but they enclose the block.
            for len in 0..net.prefix_len() {
                let mut larger = key;
                larger[n - 1] = len;
                sum = sum.minus(self.sum(&larger[..n], n * 8));
            }
        }
        sum
    }

    /// The sum of one actor's rows inside a block. O(rows of the actor).
    pub(crate) fn sum_net_of(&self, actor: &Actor, rows: &ActorRows, net: IpNet) -> i64 {
        let inside = rows
            .live()
            .filter(|(_, state)| key::to_net(&self.cells.key_of(state.cell)).is_ok_and(|key| net.contains(&key)));
        within(inside.map(|(_, state)| i128::from(self.value(actor, state.cell, &state.row))).sum())
    }

    /// By how much rows in a block are below zero, own rows included. O(rows below zero).
    pub(crate) fn owed_in(&self, net: IpNet) -> i64 {
        let others = self.below.others.by_cell.read();
        let all = others.iter().chain(&self.below.own);
        let inside = all.filter(|(id, _)| key::to_net(&self.cells.key_of(**id)).is_ok_and(|key| net.contains(&key)));
        inside.fold(0, |sum, (_, debt)| sum.saturating_add(*debt))
    }
}

/// The sum as readers see it: clamped to the range of `i64`.
pub(crate) fn within(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
