//! Comparing the keys of two replicas of a cache, part by part of the space of key hashes.
//!
//! A replica that was away may hold what all others have removed and collected. It asks a peer with the sums of the hashes of
//! its entries, one for each part. In the parts whose sums differ, the peer lists the keys that it holds. The replica drops
//! what the peer's context covers and the peer does not hold: it was removed.
//!
//! Two replicas that have taken in the same writes compare their keys as well if their fingerprints differ. Then each of them
//! drops values only, and also sends entries to the other ([`Repair`]).
//!
//! All of these walk the entries in steps, in order of slot. An entry keeps its slot while its key has an entry, so a walk
//! passes every key that is there throughout.

use std::collections::BTreeSet;

use tallymesh_schemas::message::{CacheCompare, CacheContext, CacheEntries, CacheKeys, CacheMark, Message};
use tallymesh_schemas::{Actor, Incarnation, StructureId, UnixMs, bounds};

use crate::cache::context::Context;
use crate::cache::entry::Content;
use crate::cache::fingerprint::Fingerprint;
use crate::cache::map::CacheMap;
use crate::cache::mark::Limits;
use crate::cache::sender::Cut;
use crate::cache::slots::SlotId;
use crate::canary::{self, Canary};
use crate::keyspace::hash::key_hash;

/// Slots that one step passes.
const STEP: u32 = 1 << 15;

/// Hashes in one message.
const HASHES: usize = 1 << 14;

/// Bytes of entries after which a message of a repair ends.
const REPAIR_BYTES: usize = 1 << 17;

/// Intervals without an answer after which a question was in vain.
const PATIENCE: u32 = 10;

/// The part of the key space to which a key's hash belongs.
fn part(hash: u64) -> usize {
    usize::try_from(hash >> (u64::BITS - bounds::CACHE_PARTS.ilog2())).unwrap_or(0)
}

/// The sums of the entries of all parts, as far as the walk has come.
#[derive(Debug)]
struct Sums {
    after_ms: UnixMs,
    next: SlotId,
    sums: Vec<u64>,
}

impl Sums {
    fn new(after_ms: UnixMs) -> Self {
        Self { after_ms, next: 0, sums: vec![0; bounds::CACHE_PARTS] }
    }

    /// Walks on. Passes the hash of each key to `each`. Returns whether it is done.
    fn step(&mut self, map: &CacheMap, mut each: impl FnMut(u64)) -> bool {
        let end = map.slots.end().min(self.next.saturating_add(STEP));
        for entry in (self.next..end).filter_map(|slot| map.slots.get(slot)) {
            let counts = entry.content == Content::Value && Fingerprint::has(entry, self.after_ms);
            let hash = key_hash(entry.key());
            each(hash);
            if let Some(sum) = self.sums.get_mut(part(hash)).filter(|_| counts) {
                *sum = sum.wrapping_add(entry.hash());
            }
        }
        self.next = end;
        end == map.slots.end()
    }
}

/// A replica's question to a peer, because the peer has collected what the replica has not taken in, or because the two have
/// taken in the same writes and hold other entries.
#[derive(Debug)]
pub(crate) struct Question {
    number: u64,
    /// The mark that waits for the answer.
    mark: CacheMark,
    /// What this replica and the mark's sender have taken in.
    context: Context,
    /// What the sender had taken in when it began to answer.
    theirs: Context,
    sums: Sums,
    is_summed: bool,
    is_sent: bool,
    /// Hashes of the keys that this replica held when it summed them, without those that the peer has named.
    unnamed: BTreeSet<u64>,
    /// Messages of the answer.
    next: u64,
    /// The parts that differ, once the answer is complete, and the next slot to look at.
    dropping: Option<(Vec<bool>, SlotId)>,
    /// Intervals in which the peer has not answered.
    silent: u32,
    /// What this replica then sends to the peer. No mark waits for the answer.
    repairs: Option<Repairs>,
}

/// Which entries of the parts that differ a repair sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repairs {
    /// Those of keys that the peer does not hold.
    Unnamed,
    /// All of them.
    All,
}

/// What a question needs next.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Another step, or the answer.
    Waits,
    /// The peer's answer has a gap: the question was in vain.
    Failed,
    /// The replica has dropped what was removed, and the mark applies.
    Answered(CacheMark),
    /// The replica has dropped what was removed, and now sends entries to the peer.
    Repairs(Repair),
}

impl Question {
    /// `seen` is what this replica has taken in. Of the mark, what the `limits` leave covers the writes that arrive meanwhile.
    pub(crate) fn new(
        number: u64,
        mark: CacheMark,
        (seen, after_ms): (&Context, UnixMs),
        limits: &impl Limits,
    ) -> Self {
        let mut context = seen.clone();
        for run in &mark.runs {
            context.admit(&run.run, run.upto.min(limits.limit(&run.run)), limits.places(&run.run));
        }
        for (node, first) in &mark.ended {
            if limits.has_ended(&Actor::new(node.clone(), Incarnation(first.0.saturating_sub(1)))) {
                context.end(node, *first);
            }
        }
        Self::about(number, mark, context, after_ms)
    }

    /// A question to a peer that has taken in the same writes and holds other entries. No mark waits for the answer.
    pub(crate) fn about_difference(number: u64, (seen, after_ms): (&Context, UnixMs), repairs: Repairs) -> Self {
        let question = Self::about(number, CacheMark::default(), seen.clone(), after_ms);
        Self { repairs: Some(repairs), ..question }
    }

    fn about(number: u64, mark: CacheMark, context: Context, after_ms: UnixMs) -> Self {
        let (sums, theirs, unnamed) = (Sums::new(after_ms), Context::default(), BTreeSet::new());
        Self {
            number,
            mark,
            context,
            theirs,
            sums,
            is_summed: false,
            is_sent: false,
            unnamed,
            next: 0,
            dropping: None,
            silent: 0,
            repairs: None,
        }
    }

    /// What covers the writes that arrive meanwhile.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Whether the question can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_summed && !self.is_sent
    }

    /// Whether it does not wait for the peer.
    pub(crate) fn is_working(&self) -> bool {
        !self.is_summed || self.dropping.is_some()
    }

    /// The question itself.
    pub(crate) fn ask(&mut self, structure: StructureId) -> CacheCompare {
        self.is_sent = true;
        let (question, after_ms) = (self.number, self.sums.after_ms);
        CacheCompare { structure, question, after_ms, sums: self.sums.sums.clone() }
    }

    /// An interval has passed. Returns whether the peer has not answered for too long.
    pub(crate) fn tick(&mut self) -> bool {
        self.silent = if self.is_working() { 0 } else { self.silent + 1 };
        self.silent > PATIENCE
    }

    /// A message of the answer. Keys in it that this replica does not hold do not matter. A key that comes later is a write that
    /// the question does not cover, so it is not dropped.
    pub(crate) fn handle(&mut self, keys: &CacheKeys<'_>) -> Asked {
        if keys.question != self.number || !self.is_sent || self.dropping.is_some() {
            return Asked::Waits;
        }
        if keys.position != self.next {
            return Asked::Failed;
        }
        self.next += 1;
        self.silent = 0;
        if let Some(seen) = &keys.seen {
            self.theirs = Context::from(seen);
        }
        let (hashes, _) = keys.hashes.as_chunks::<8>();
        for hash in hashes {
            self.unnamed.remove(&u64::from_le_bytes(*hash));
        }
        if let Some(differ) = &keys.parts {
            let mut parts = vec![false; bounds::CACHE_PARTS];
            for at in differ {
                if let Some(part) = parts.get_mut(*at as usize) {
                    *part = true;
                }
            }
            self.dropping = Some((parts, 0));
        }
        Asked::Waits
    }

    /// Walks on: sums the entries, or drops some of what the peer covers and does not hold. Passes each key that goes to `changed`.
    pub(crate) fn step(&mut self, map: &mut CacheMap, mut changed: impl FnMut(&[u8])) -> Asked {
        if !self.is_summed {
            let unnamed = &mut self.unnamed;
            self.is_summed = self.sums.step(map, |hash| _ = unnamed.insert(hash));
        }
        let Some((parts, next)) = &mut self.dropping else { return Asked::Waits };
        let end = map.slots.end().min(next.saturating_add(STEP));
        let mut removed = Vec::new();
        for slot in *next..end {
            let Some(entry) = map.slots.get(slot) else { continue };
            let hash = key_hash(entry.key());
            let differs = parts.get(part(hash)).is_some_and(|differs| *differs);
            let covers = |context: &Context| context.covers(map.writer(entry), entry.number);
            // Without a mark, removals wait for a round: what they removed may be on its way from a third node.
            let may_go = entry.content == Content::Value || self.repairs.is_none();
            if differs && may_go && covers(&self.theirs) && covers(&self.context) && self.unnamed.contains(&hash) {
                removed.push(slot);
            }
        }
        for slot in removed {
            if let Some(entry) = map.slots.get(slot) {
                changed(entry.key());
            }
            map.uninstall(slot);
        }
        *next = end;
        if end < map.slots.end() {
            return Asked::Waits;
        }
        match self.repairs.filter(|_| repairs_are_sent()) {
            None => Asked::Answered(self.mark.clone()),
            Some(repairs) => {
                let only = (repairs == Repairs::Unnamed).then(|| std::mem::take(&mut self.unnamed));
                Asked::Repairs(Repair { parts: std::mem::take(parts), only, next: 0 })
            }
        }
    }
}

/// What a replica sends to a peer that has taken in the same writes and holds other entries: its entries in the parts that
/// differ. The peer joins them like a message that comes late. So the greater write of a key that both hold wins, and nothing
/// comes back that was removed. For the other direction the peer asks itself.
///
/// Entries are read when they are sent. So behind a report on the same link, no entry follows that is older than the report.
#[derive(Debug)]
pub(crate) struct Repair {
    parts: Vec<bool>,
    /// The hashes of the keys to which it is limited.
    only: Option<BTreeSet<u64>>,
    next: SlotId,
}

impl Repair {
    /// Sends the next message. It may have no entries. Returns whether it is the last one.
    pub(crate) fn next(&mut self, map: &CacheMap, structure: StructureId, send: impl FnOnce(&Message<'_>)) -> bool {
        let end = map.slots.end().min(self.next.saturating_add(STEP));
        let mut cut = Cut::default();
        let mut slot = self.next;
        while slot < end && !cut.is_full(REPAIR_BYTES) {
            if let Some(entry) = map.slots.get(slot).filter(|entry| self.has(key_hash(entry.key()))) {
                cut.push(map, entry);
            }
            slot += 1;
        }
        self.next = slot;
        cut.send((structure, CacheEntries::REPAIR, 0), None, send);
        slot >= map.slots.end()
    }

    fn has(&self, hash: u64) -> bool {
        let differs = self.parts.get(part(hash)).is_some_and(|differs| *differs);
        differs && self.only.as_ref().is_none_or(|only| only.contains(&hash))
    }
}

/// Whether a replica sends entries to a peer that has taken in the same writes and holds other entries.
fn repairs_are_sent() -> bool {
    !canary::broken(Canary::ValuesLeft)
}

/// A replica's answer to a peer's question, in progress.
#[derive(Debug)]
pub(crate) struct Answer {
    question: u64,
    theirs: Vec<u64>,
    ours: Sums,
    /// The parts that differ, once the sums are there.
    parts: Option<Vec<bool>>,
    /// What this replica had taken in then, until it was sent.
    seen: Option<CacheContext>,
    next: SlotId,
    position: u64,
}

/// The content of the next message of an answer.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) question: u64,
    pub(crate) position: u64,
    pub(crate) hashes: Vec<u8>,
    /// In the first piece: what this replica had taken in before it looked for the keys.
    pub(crate) seen: Option<CacheContext>,
    /// In the last piece: the parts that differ.
    pub(crate) parts: Option<Vec<u32>>,
}

impl Answer {
    pub(crate) fn new(compare: CacheCompare) -> Self {
        let ours = Sums::new(compare.after_ms);
        Self { question: compare.question, theirs: compare.sums, ours, parts: None, seen: None, next: 0, position: 0 }
    }

    /// Walks on. Returns the next piece, if there is one yet.
    pub(crate) fn step(&mut self, map: &CacheMap) -> Option<Piece> {
        let Some(parts) = &self.parts else {
            if self.ours.step(map, |_| ()) {
                let differ = self.ours.sums.iter().zip(self.theirs.iter().map(Some).chain(std::iter::repeat(None)));
                self.parts = Some(differ.map(|(ours, theirs)| theirs != Some(ours)).collect());
                self.seen = Some(map.seen.beyond(&Context::default()));
            }
            return None;
        };
        let mut piece = Piece { question: self.question, position: self.position, ..Piece::default() };
        let end = map.slots.end().min(self.next.saturating_add(STEP));
        let mut slot = self.next;
        while slot < end && piece.hashes.len() < HASHES * 8 {
            if let Some(entry) = map.slots.get(slot) {
                let hash = key_hash(entry.key());
                if parts.get(part(hash)).is_some_and(|differs| *differs) {
                    piece.hashes.extend_from_slice(&hash.to_le_bytes());
                }
            }
            slot += 1;
        }
        self.next = slot;
        if slot >= map.slots.end() {
            let differ = (0u32..).zip(parts).filter(|(_, differs)| **differs);
            piece.parts = Some(differ.map(|(at, _)| at).collect());
        } else if piece.hashes.is_empty() {
            return None;
        }
        piece.seen = self.seen.take();
        self.position += 1;
        Some(piece)
    }
}
