//! Invariant V: what each context promises, checked against all writes.

use std::collections::BTreeMap;

use tallymesh_schemas::Actor;

use crate::cache::context::Context;
use crate::cache::map::CacheMap;
use crate::hlc::Stamp;

/// The keys that nodes write.
pub(super) const KEYS: [&[u8]; 2] = [b"a", b"b"];

/// All writes of a walk, and what was collected.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    writes: BTreeMap<(Actor, u64), (&'static [u8], Stamp)>,
    /// Each with what the replica had taken in then.
    collected: Vec<(&'static [u8], Stamp, Context)>,
}

impl Ledger {
    /// Notes the entries of a replica, but not those ahead of `latest`: their node writes them again with earlier stamps.
    pub(super) fn note(&mut self, map: &CacheMap, latest: Stamp) {
        for key in KEYS {
            if let Some(entry) = map.get(key).filter(|entry| entry.stamp <= latest) {
                self.writes.insert((map.writer(entry).clone(), entry.number), (key, entry.stamp));
            }
        }
    }

    /// A replica has collected a removal.
    pub(super) fn note_collected(&mut self, key: &'static [u8], stamp: Stamp, map: &CacheMap) {
        self.collected.push((key, stamp, map.seen().clone()));
    }

    /// Checks that a replica has each write that its context names, or a later one, or that a later removal was collected. If the
    /// others did not wait for some node, that node may return with a write that they have not taken in: it stays.
    pub(super) fn check(&self, map: &CacheMap, waited: Waited) -> Result<(), String> {
        for ((run, number), (key, stamp)) in &self.writes {
            let reached = map.seen().reached(run);
            if *number > reached || reached == u64::MAX || self.is_skipped(map, key, *stamp) {
                continue;
            }
            let mut later = self.collected.iter().filter(|(of, removal, _)| of == key && removal >= stamp);
            let is_kept = match map.get(key) {
                Some(entry) if entry.stamp >= *stamp => true,
                Some(entry) => {
                    let returned = |seen: &Context| !seen.covers(map.writer(entry), entry.number);
                    waited == Waited::NotAlways && later.any(|(.., seen)| returned(seen))
                }
                None => later.next().is_some(),
            };
            if !is_kept {
                let entry = map.get(key).map(|entry| entry.stamp);
                return Err(format!("write {number} of {run} to {key:?} at {stamp:?} counts as taken in: {entry:?}"));
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// Whether a replica that joined later has skipped a write of a key, or a later one that superseded it.
    fn is_skipped(&self, map: &CacheMap, key: &[u8], stamp: Stamp) -> bool {
        let mut later = self.writes.iter().filter(|(_, (of, later))| *of == key && *later >= stamp);
        !map.is_whole() && later.any(|((run, number), _)| map.skipped.covers(run, *number))
    }
}

/// Whether nodes waited for all others before they collected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Always,
    NotAlways,
}
