//! The ordered index: a radix tree over key bytes that stores, at every branch, the sum of the leaves under it.
//!
//! Inner nodes branch on one byte and keep children and their sums side by side in sorted arrays. So the sum under any
//! prefix is one descent and one pass over at most 255 neighbouring numbers, and an update touches as many nodes as the key
//! has branches above it. Bytes that all keys of a subtree share are not stored; a search compares them with a leaf.
//! Adaptive node sizes after Leis et al., "The Adaptive Radix Tree" (2013).
//!
//! Leaves are cell numbers; the caller provides the key of a number ([`KeyOf`]). No key, followed by a zero byte, may be a
//! prefix of another key.
#![allow(clippy::indexing_slicing, reason = "positions are below the length of a key that the caller has checked")]

use std::ops::Bound;

use smallvec::SmallVec;

use crate::index::nodes::{Aggregate, NodeId, Nodes, Ref};
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::CellKey;

/// The byte of a key at a position; zero after its end.
fn at(key: &[u8], position: usize) -> u8 {
    key.get(position).copied().unwrap_or(0)
}

/// The first position at which two keys differ; `None` when they are equal.
fn parting(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { Some(a.iter().zip(b).take_while(|(a, b)| a == b).count()) }
}

/// Returns whether the first `bits` bits are equal.
pub(crate) fn agree(key: &[u8], prefix: &[u8], bits: usize) -> bool {
    let (whole, rest) = (bits / 8, bits % 8);
    key.len() >= whole
        && key[..whole] == prefix[..whole]
        && (rest == 0 || (at(key, whole) ^ at(prefix, whole)) >> (8 - rest) == 0)
}

#[derive(Debug, Default)]
pub(crate) struct Radix<S> {
    root: Option<Ref>,
    total: S,
    nodes: Nodes<S>,
}

impl<S: Aggregate> Radix<S> {
    /// Adds a leaf with sum zero. The key must not be in the tree yet.
    pub(crate) fn insert(&mut self, id: CellId, keys: &impl KeyOf) {
        let Some(root) = self.root else {
            self.root = Some(Ref::leaf(id));
            return;
        };
        let (key, other) = (&*keys.key_of(id), &*keys.key_of(self.nearest(root, &keys.key_of(id))));
        let Some(depth) = parting(key, other) else {
            debug_assert!(false, "a key is inserted once");
            return;
        };
        let mut edge = root;
        let mut above = None;
        while let Some(node) = edge.node().filter(|node| self.nodes.depth(*node) < depth) {
            // The nearest leaf took this branch too, so the branch exists.
            let child = self.nodes.find(node, at(key, self.nodes.depth(node))).unwrap_or(0);
            above = Some((node, child));
            edge = self.nodes.child(node, child);
        }
        let leaf = Ref::leaf(id);
        let changed = match edge.node().filter(|node| self.nodes.depth(*node) == depth) {
            Some(node) => self.nodes.insert(node, at(key, depth), leaf, S::default()),
            None => {
                let sum = above.map_or(self.total, |(node, child)| self.nodes.sum(node, child));
                self.nodes.branch(depth, (at(other, depth), edge, sum), (at(key, depth), leaf, S::default()))
            }
        };
        self.relink(above, Ref::inner(changed));
    }

    /// Adds to the sums on the paths to many leaves, one level at a time. Each path waits for memory at each node, so the
    /// waits of all paths overlap.
    pub(crate) fn add_all(&mut self, leaves: &[(CellKey, S)]) {
        let mut ways: SmallVec<[_; 32]> =
            leaves.iter().map(|(key, n)| (self.root.and_then(Ref::node), key, *n)).collect();
        self.total = leaves.iter().fold(self.total, |total, (_, n)| total.plus(*n));
        while !ways.is_empty() {
            ways.retain(|(node, key, n)| {
                let Some(at_node) = *node else { return false };
                let found = self.nodes.find(at_node, at(key, self.nodes.depth(at_node)));
                debug_assert!(found.is_some(), "only a key that is there is added to");
                let Some(child) = found else { return false };
                self.nodes.add(at_node, child, *n);
                *node = self.nodes.child(at_node, child).node();
                true
            });
        }
    }

    /// Removes a leaf whose sum is zero.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let Some(mut edge) = self.root else { return };
        let mut path: SmallVec<[_; 24]> = SmallVec::new();
        while let Some(node) = edge.node() {
            let Some(child) = self.nodes.find(node, at(key, self.nodes.depth(node))) else { return };
            path.push((node, child));
            edge = self.nodes.child(node, child);
        }
        let Some((node, child)) = path.pop() else {
            self.root = None;
            return;
        };
        let left = self.nodes.remove(node, child);
        self.relink(path.last().copied(), left);
    }

    fn relink(&mut self, above: Option<(NodeId, usize)>, edge: Ref) {
        match above {
            Some((node, child)) => self.nodes.set_child(node, child, edge),
            None => self.root = Some(edge),
        }
    }

    /// The sum of the leaves whose first `bits` bits equal those of `prefix`.
    pub(crate) fn sum(&self, prefix: &[u8], bits: usize, keys: &impl KeyOf) -> S {
        let (whole, rest) = (bits / 8, bits % 8);
        let Some(mut edge) = self.root else { return S::default() };
        let mut sum = self.total;
        // Bytes that all keys share are compared with the first key, which is read often and so is likely cached.
        let mut compared = match edge.node().map(|root| self.nodes.depth(root)) {
            Some(depth) if agree(&keys.key_of(self.first(edge)), prefix, depth.min(whole) * 8) => depth.min(whole),
            Some(_) => return S::default(),
            None => 0,
        };
        while let Some(node) = edge.node() {
            if compared == whole && rest == 0 {
                // The path so far covers the whole prefix, whatever is below.
                return sum;
            }
            let depth = self.nodes.depth(node);
            if depth < whole {
                let Some(child) = self.nodes.find(node, at(prefix, depth)) else { return S::default() };
                sum = self.nodes.sum(node, child);
                edge = self.nodes.child(node, child);
                if compared == depth {
                    compared += 1;
                }
                continue;
            }
            let left = if depth > whole { rest } else { 0 };
            let all_compared = compared == whole && left == 0;
            if !all_compared && !agree(&keys.key_of(self.first(edge)), prefix, whole * 8 + left) {
                return S::default();
            }
            if depth == whole && rest > 0 {
                let mask = 0xff_u8 >> rest;
                let low = at(prefix, whole) & !mask;
                return self.nodes.sum_between(node, low, low | mask);
            }
            return sum;
        }
        let all_compared = compared == whole && rest == 0;
        let agrees = all_compared || edge.leaf_id().is_some_and(|id| agree(&keys.key_of(id), prefix, bits));
        if agrees { sum } else { S::default() }
    }

    /// The first leaf whose key is in the range from `from` on.
    pub(crate) fn seek(&self, from: Bound<&[u8]>, keys: &impl KeyOf) -> Option<CellId> {
        let key = match from {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => &[],
        };
        let mut edge = self.root?;
        let nearest = &*keys.key_of(self.nearest(edge, key));
        let depth = parting(key, nearest).unwrap_or(usize::MAX);
        // The deepest next sibling of the path: all of its leaves are behind the path.
        let mut sibling = None;
        while let Some(node) = edge.node().filter(|node| self.nodes.depth(*node) < depth) {
            let child = self.nodes.find(node, at(key, self.nodes.depth(node)))?;
            sibling = self.nodes.get_child(node, child + 1).or(sibling);
            edge = self.nodes.child(node, child);
        }
        let behind = if depth == usize::MAX {
            (from == Bound::Included(key)).then_some(edge)
        } else if let Some(node) = edge.node().filter(|node| self.nodes.depth(*node) == depth) {
            self.nodes.get_child(node, self.nodes.rank(node, at(key, depth)))
        } else {
            // All leaves here differ from the key at the same position as the nearest leaf.
            (at(nearest, depth) > at(key, depth)).then_some(edge)
        };
        behind.or(sibling).map(|edge| self.first(edge))
    }

    /// A leaf whose common prefix with `key` is as long as that of any leaf.
    fn nearest(&self, root: Ref, key: &[u8]) -> CellId {
        let mut edge = root;
        loop {
            match edge.leaf_id() {
                Some(id) => return id,
                None => {
                    let node = edge.node().unwrap_or_default();
                    let child = self.nodes.find(node, at(key, self.nodes.depth(node))).unwrap_or(0);
                    edge = self.nodes.child(node, child);
                }
            }
        }
    }

    fn first(&self, mut edge: Ref) -> CellId {
        loop {
            match edge.leaf_id() {
                Some(id) => return id,
                None => edge = self.nodes.child(edge.node().unwrap_or_default(), 0),
            }
        }
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::index::nodes::Sum;

    impl KeyOf for Vec<Vec<u8>> {
        fn key_of(&self, id: CellId) -> CellKey {
            CellKey::new(&self[id as usize])
        }
    }

    /// Keys without zero bytes, so that none is a prefix of another, and of few letters, so that they share prefixes.
    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![1u8..4, 1u8..=255];
        prop::collection::hash_set(prop::collection::vec(byte, 1..6), 1..200).prop_map(|set| {
            let mut keys: Vec<_> = set.into_iter().collect();
            keys.sort();
            keys
        })
    }

    fn order<T>(items: &mut [T], seed: u64) {
        let mut state = seed | 1;
        for i in (1..items.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            items.swap(i, (state >> 33) as usize % (i + 1));
        }
    }

    fn check(radix: &Radix<Sum>, model: &BTreeMap<Vec<u8>, i64>, keys: &Vec<Vec<u8>>, probe: &[u8], bits: usize) {
        let sum: i64 = model.iter().filter(|(key, _)| agree(key, probe, bits)).map(|(_, n)| n).sum();
        assert_eq!(radix.sum(probe, bits, keys), Sum { all: sum, own: -sum }, "sum under {probe:?}/{bits}");
        let found = |id: Option<CellId>| id.map(|id| keys[id as usize].clone());
        let from = model.range(probe.to_vec()..).next().map(|(key, _)| key.clone());
        assert_eq!(found(radix.seek(Bound::Included(probe), keys)), from);
        let behind = model.keys().find(|key| key.as_slice() > probe).cloned();
        assert_eq!(found(radix.seek(Bound::Excluded(probe), keys)), behind);
    }

    proptest! {
        #[test]
        fn order_and_sums_are_those_of_a_sorted_map(
            keys in keys(), seed: u64, values in prop::collection::vec(-9i64..99, 200),
            probes in prop::collection::vec((prop::collection::vec(1u8..=255, 1..7), 0usize..50), 20),
        ) {
            let mut ids: Vec<u32> = (0..keys.len() as u32).collect();
            order(&mut ids, seed);
            let (mut radix, mut model) = (Radix::default(), BTreeMap::new());
            for id in &ids {
                let (key, value) = (&keys[*id as usize], values[*id as usize]);
                radix.insert(*id, &keys);
                radix.add_all(&[(CellKey::new(key), Sum { all: value, own: -value })]);
                model.insert(key.clone(), value);
            }
            order(&mut ids, !seed);
            for (i, id) in ids.iter().enumerate() {
                for (probe, bits) in &probes {
                    check(&radix, &model, &keys, probe, (*bits).min(probe.len() * 8));
                }
                let key = &keys[*id as usize];
                check(&radix, &model, &keys, key, (i % 9).min(key.len() * 8));
                let value = model.remove(key).unwrap();
                radix.add_all(&[(CellKey::new(key), Sum { all: -value, own: value })]);
                radix.remove(key);
            }
            prop_assert_eq!(radix.seek(Bound::Unbounded, &keys), None);
            prop_assert_eq!(radix.sum(&[], 0, &keys), Sum::default());
        }
    }

    #[test]
    fn nodes_grow_and_shrink_with_their_children() {
        let keys: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![9, b, 7]).collect();
        let mut radix = Radix::<()>::default();
        (0..256).for_each(|id| radix.insert(id, &keys));
        let walk = |radix: &Radix<()>| {
            let (mut seen, mut next) = (Vec::new(), radix.seek(Bound::Unbounded, &keys));
            while let Some(id) = next {
                seen.push(id);
                next = radix.seek(Bound::Excluded(&keys[id as usize]), &keys);
            }
            seen
        };
        assert_eq!(walk(&radix), (0..256).collect::<Vec<_>>());
        (0..256).filter(|id| id % 3 != 0).for_each(|id| radix.remove(&keys[id as usize]));
        assert_eq!(walk(&radix), (0..256).filter(|id| id % 3 == 0).collect::<Vec<_>>());
    }
}
