//! Verification of caches: compares what the members have taken in, and the sums of their entries.

use std::collections::BTreeSet;

use tallymesh_schemas::{Actor, NodeName, Version};

use crate::cache::context::Context;
use crate::cache::receiver::Receiver;
use crate::replica::Replica;
use crate::replica::caches::held::HeldCache;
use crate::replica::verify::found::{Fault, Finding, Verification};

impl Replica {
    /// Compares this node's copy of a cache, and what the members have said of theirs.
    pub(super) fn compare_cache(&self, held: &HeldCache, said: &[(&NodeName, &Receiver)], found: &mut Verification) {
        self.compare_contexts(held, said, found);
        compare_sums(held, said, found);
    }

    fn compare_contexts(&self, held: &HeldCache, said: &[(&NodeName, &Receiver)], found: &mut Verification) {
        let map = held.cache.shared.map.read();
        let own = (&self.runs.actor.node, map.seen());
        let peers = said.iter().filter_map(|(peer, receiver)| Some((*peer, receiver.said()?)));
        let members: Vec<(&NodeName, &Context)> = std::iter::once(own).chain(peers).collect();
        let runs: BTreeSet<&Actor> = members.iter().flat_map(|(_, seen)| seen.runs().map(|(run, _)| run)).collect();
        found.actors += runs.len();
        for run in runs {
            let reached = |seen: &Context| seen.reached(run);
            let owner = members.iter().find(|(member, _)| **member == run.node && self.runs.is_current(run));
            let most = members.iter().map(|(_, seen)| reached(seen)).filter(|number| *number < u64::MAX).max();
            let head = owner.map(|(_, seen)| reached(seen)).or(most).unwrap_or_default();
            found.copies += members.len();
            for (member, seen) in members.iter().filter(|(_, seen)| reached(seen) < head) {
                found.findings.push(Finding {
                    structure: held.cache.spec().name.clone(),
                    actor: run.clone(),
                    member: (*member).clone(),
                    applied: Version(reached(seen)),
                    head: Version(head),
                    fault: Fault::Lags,
                });
            }
        }
    }
}

/// Compares the sums of the entries of members that have taken in the same writes.
fn compare_sums(held: &HeldCache, said: &[(&NodeName, &Receiver)], found: &mut Verification) {
    let map = held.cache.shared.map.read();
    if !map.is_whole() {
        return;
    }
    for (member, receiver) in said.iter().filter(|(_, receiver)| !receiver.is_partial) {
        let (sum, after_ms) = receiver.fingerprint;
        if receiver.said() != Some(map.seen()) || map.derived().fingerprint.after(after_ms) == sum {
            continue;
        }
        let Some((run, number)) = map.seen().runs().last() else { continue };
        found.findings.push(Finding {
            structure: held.cache.spec().name.clone(),
            actor: run.clone(),
            member: (*member).clone(),
            applied: Version(number),
            head: Version(number),
            fault: Fault::Differs,
        });
    }
}
