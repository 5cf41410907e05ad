//! What must hold at any time, and when everything has been delivered.

use tallymesh_schemas::UnixMs;

use crate::cache::walk::ledger::{KEYS, Waited};
use crate::cache::walk::world::{Node, World};
use crate::hlc::Stamp;

impl World {
    /// No process reads an earlier write of a key than before, the contexts keep invariant V, and the aggregates are those of the
    /// entries.
    pub(in crate::cache::walk) fn check(&mut self) -> Result<(), String> {
        let latest = Stamp::at(UnixMs(self.now_ms + 1));
        let waited = if self.gave_up { Waited::NotAlways } else { Waited::Always };
        self.nodes.iter().for_each(|node| self.ledger.note(&node.map, latest));
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.map.audit().map_err(|what| format!("n{at}: {what}"))?;
            if !self.is_wrong {
                self.ledger.check(&node.map, waited).map_err(|what| format!("n{at}: {what}"))?;
            }
            for key in KEYS {
                let Some(entry) = node.map.get(key) else { continue };
                let read = node.read.entry(key).or_default();
                if entry.stamp < *read {
                    return Err(format!("n{at} reads {key:?} at {:?}, and had {read:?}", entry.stamp));
                }
                *read = entry.stamp;
            }
        }
        Ok(())
    }

    /// Delivers everything and lets time pass, until all nodes have the same.
    pub(in crate::cache::walk) fn settle(&mut self) -> Result<(), String> {
        (0..self.nodes.len()).for_each(|at| self.nodes[at].ahead_ms = 0);
        self.pairs().into_iter().for_each(|(i, j)| self.link(i, j));
        for round in 0..60 {
            for _ in 0..40 {
                let mut moved = false;
                for (i, j) in self.pairs() {
                    for (a, b) in [(i, j), (j, i)] {
                        while self.send(a, b) | self.deliver(a, b) {
                            moved = true;
                            self.check()?;
                        }
                    }
                }
                for at in 0..self.nodes.len() {
                    let view = self.view(at);
                    let Node { map, exchange, .. } = &mut self.nodes[at];
                    while exchange.is_working() {
                        exchange.work(map, &view, |_| {});
                        moved = true;
                    }
                }
                self.check()?;
                if !moved {
                    break;
                }
            }
            self.now_ms += if round == 20 { 70_000 } else { 1000 };
            (0..self.nodes.len()).for_each(|at| self.tick(at));
        }
        self.compare()
    }

    /// Two nodes hold the same values.
    #[cfg(feature = "canaries")]
    pub(in crate::cache::walk) fn same_values(&self, i: usize, j: usize) -> Result<(), String> {
        let values = |at: usize| KEYS.map(|key| self.nodes[at].map.get(key).and_then(|entry| entry.value()));
        let (of_i, of_j) = (values(i), values(j));
        if of_i == of_j { Ok(()) } else { Err(format!("n{i} holds {of_i:?}, and n{j} {of_j:?}")) }
    }

    /// All nodes have the same. What a node has skipped because it joined later, it need not have.
    fn compare(&self) -> Result<(), String> {
        let live = |node: &Node| {
            KEYS.map(|key| {
                let live = node.map.get(key).filter(|entry| entry.value().is_some());
                // Equal entries of different writers have no different fingerprints.
                let writer = |entry| node.map.writer(entry).clone();
                live.map(|entry| {
                    (entry.stamp, (!self.is_wrong).then(|| writer(entry)), entry.value().map(<[u8]>::to_vec))
                })
            })
        };
        let first = &self.nodes[0];
        for node in &self.nodes {
            let same =
                live(node).iter().zip(&live(first)).all(|(a, b)| a == b || (a.is_none() && !node.map.is_whole()));
            if !same || node.map.seen != first.map.seen {
                let states: Vec<_> = self.nodes.iter().map(|node| (live(node), &node.map.seen)).collect();
                return Err(format!("settled apart: {states:#?}"));
            }
        }
        Ok(())
    }
}
